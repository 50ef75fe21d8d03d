-- Keeps records of a length and in languages of your choice. A language is told by its commonest
-- words; a text with too few of any is kept, since nothing is known of it.
local words_of = {
  en = "the of and to in is that for it was on are with as you this be at have from or not by but",
  de = "der die und das ist in zu den mit nicht von es ein eine auf auch sich dem im sie ich wird",
  fr = "le la les et des est un une que dans pour qui sur pas au du ce il elle avec sont par nous",
  es = "el la los de que y en un una es se por con para no las del al como su lo más pero son",
  it = "il di che la e un una per non sono in del con si le della da al dei come anche più questo",
  nl = "de het een van en in is dat op te zijn niet met voor die aan er ook maar als bij dit",
  pt = "o a os as de que e em um uma para com não por mais se do da no na ao como mas foi",
}

local function t_record(text) return {record = {text = text}, source = "t", line = 1, tags = {}} end

plugin {
  name = "language", version = "1.0",
  summary = "keeps records of a length and in the languages you name",
  settings = {
    languages = {type = "list", default = {"en"}, help = "de, en, es, fr, it, nl, pt"},
    least_words = {type = "integer", default = 1, min = 0, help = "fewer are dropped"},
    most_words = {type = "integer", default = 100000, min = 1, help = "more are dropped"},
    sure = {type = "number", default = 0.06, min = 0, max = 1,
            help = "the share of a language's common words from which it is taken to be in it"},
  },
  tests = {
    ["another language"] = function(t)
      local r = t.emit("data.filter", t_record("Der Hund ist nicht in dem Haus und die Katze auch nicht."))
      t.eq(r.answer, "veto") t.eq(r.reason, "language de")
    end,
    ["this language"] = function(t)
      t.eq(t.emit("data.filter", t_record("The dog is not in the house, and it was on the road.")).answer,
           "continue")
    end,
    ["no language at all"] = function(t)
      t.eq(t.emit("data.filter", t_record("SELECT 1; SELECT 2;")).answer, "continue")
    end,
    ["too short"] = function(t) t.eq(t.emit("data.filter", t_record("")).reason, "0 words") end,
  },
}

local wanted, languages_of = {}, {}
for _, name in pairs(host.config.languages) do
  if not words_of[name] then error("no language '" .. name .. "' (de, en, es, fr, it, nl, pt)", 0) end
  wanted[name] = true
end
for name, list in pairs(words_of) do
  for word in list:gmatch("%S+") do
    languages_of[word] = languages_of[word] or {}
    table.insert(languages_of[word], name)
  end
end

-- All text of a record, whatever its shape.
local function collect(value, out)
  if type(value) == "string" then out[#out + 1] = value end
  if type(value) == "table" then
    for key, inner in pairs(value) do
      if key ~= "role" then collect(inner, out) end
    end
  end
  return out
end

-- The words, and the language with most of its common words among them.
local function look(text)
  local n, hits, best = 0, {}, nil
  for word in text:gmatch("[%w\x80-\xff']+") do
    n = n + 1
    for _, name in ipairs(languages_of[word:lower()] or {}) do
      hits[name] = (hits[name] or 0) + 1
      if best == nil or hits[name] > hits[best] then best = name end
    end
  end
  return n, best, best and hits[best] / n or 0
end

on("data.filter", function(record)
  local n, language, share = look(table.concat(collect(record, {}), "\n"))
  if n < host.config.least_words or n > host.config.most_words then return false, n .. " words" end
  if share >= host.config.sure and not wanted[language] then return false, "language " .. language end
end)
