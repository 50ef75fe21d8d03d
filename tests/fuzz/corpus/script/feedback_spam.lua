-- Puts feedback into shape, and what looks like spam aside: it is stored with the tag "quarantine",
-- and makes no training example until a person has accepted it.
plugin {
  name = "feedback_spam", version = "1.0",
  summary = "tidies feedback; what looks like spam is quarantined",
  settings = {
    links = {type = "integer", default = 0, min = 0, help = "more links than so many are spam"},
    repeats = {type = "integer", default = 5, min = 0,
               help = "the same correction more often than so many times is spam; 0: not looked at"},
    shouting = {type = "number", default = 0.8, min = 0, max = 1,
                help = "a larger share of capitals (in 20 letters or more) is spam"},
  },
  tests = {
    ["tidied"] = function(t)
      local r = t.emit("feedback.ingest", {rating = "up", comment = "  so \t good \n", tags = {"Fast", "fast"}})
      t.eq(r.data, {rating = "up", comment = "so good", tags = {"fast"}})
    end,
    ["spam"] = function(t)
      local r = t.emit("feedback.ingest", {rating = "down", correction = "Buy at http://x.example now"})
      t.eq(r.data.tags, {"quarantine", "quarantine-link"})
      r = t.emit("feedback.ingest", {rating = "down", correction = "GREAT DEALS ON WATCHES TODAY ONLY"})
      t.eq(r.data.tags, {"quarantine", "quarantine-shouting"})
      r = t.emit("feedback.ingest", {rating = "down", correction = "yeeeeeeeeeees"})
      t.eq(r.data.tags, {"quarantine", "quarantine-noise"})
      for i = 1, 6 do r = t.emit("feedback.ingest", {rating = "down", correction = "Same text"}) end
      t.eq(r.data.tags, {"quarantine", "quarantine-repeated"})
    end,
    ["kept out of training"] = function(t)
      local spam = {id = "f", tags = {"quarantine"}}
      local r = t.emit("feedback.to_example", {feedback = spam, example = {messages = {}}})
      t.eq(r.answer, "veto")
      spam.review = "accepted"
      t.eq(t.emit("feedback.to_example", {feedback = spam, example = {messages = {}}}).answer, "continue")
    end,
  },
}

local function tidy(text) return (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")) end

local function count(text, pattern) return select(2, text:gsub(pattern, "%0")) end

local function repeated(text)
  if host.config.repeats == 0 then return false end
  local known, n = pcall(host.kv.add, "seen/" .. host.sha256(text:lower()))
  if not known then host.log("warn", n) end
  return known and n > host.config.repeats
end

local function same_letter(text)
  return text:find("(%a)%1%1%1%1%1") ~= nil
end

-- Why this text is spam, or nil.
local function reason(text)
  local letters, capitals = count(text, "%a"), count(text, "%u")
  if count(text:lower(), "https?://") + count(text:lower(), "%f[%w]www%.") > host.config.links then
    return "link"
  elseif letters >= 20 and capitals / letters > host.config.shouting then
    return "shouting"
  elseif same_letter(text) then
    return "noise"
  end
end

local function tidy_tags(tags)
  local seen, out = {}, {}
  for _, tag in ipairs(type(tags) == "table" and tags or {}) do
    tag = tidy(tag):lower()
    if tag ~= "" and not seen[tag] then out[#out + 1] = tag end
    seen[tag] = true
  end
  return out
end

on("feedback.ingest", function(feedback)
  local changed, why = {}, nil
  for _, field in ipairs {"correction", "comment"} do
    local text = feedback[field]
    if type(text) == "string" then
      -- A correction may have lines of its own; only its ends are trimmed.
      changed[field] = field == "comment" and tidy(text) or (text:gsub("^%s+", ""):gsub("%s+$", ""))
      why = why or reason(text)
    end
  end
  if not why and changed.correction and repeated(changed.correction) then why = "repeated" end
  local tags = tidy_tags(feedback.tags)
  if why then
    host.counter("quarantined")
    tags[#tags + 1] = "quarantine"
    tags[#tags + 1] = "quarantine-" .. why
  end
  if #tags > 0 then changed.tags = tags end
  return changed
end)

on("feedback.to_example", function(feedback)
  if feedback.review == "accepted" or type(feedback.tags) ~= "table" then return end
  for _, tag in ipairs(feedback.tags) do
    if tag == "quarantine" then return false, "quarantined" end
  end
end)
