-- A word list as a guard: on what users ask, and on what they are answered, whole or streamed. A
-- streamed word is never sent before its end is known, so that one cut into pieces is caught too.
plugin {
  name = "toxicity", version = "1.0",
  summary = "refuses or masks words of a list, in requests and in answers",
  settings = {
    words = {type = "list", help = "the words, in any case",
             default = {"idiot", "idiots", "moron", "morons", "imbecile", "scumbag", "bastard",
                        "bitch", "slut", "whore", "fuck", "fucking", "fucker", "shit", "asshole",
                        "cunt", "dickhead", "retard", "faggot", "nigger"}},
    request = {type = "text", default = "refuse", choices = {"refuse", "mask", "allow"},
               help = "what is done with such a word in a request"},
    answer = {type = "text", default = "mask", choices = {"refuse", "mask", "allow"},
              help = "what is done with such a word in an answer"},
  },
  tests = {
    ["a word that two pieces share"] = function(t)
      local said = ""
      for i, piece in ipairs {"You id", "iot, and y", "ou m", "", "oron"} do
        local r = t.emit("serve.chunk", {request_id = "r", choice = 0, text = piece, eof = false})
        said = said .. r.data.text
      end
      local r = t.emit("serve.chunk", {request_id = "r", choice = 0, text = "", eof = true})
      t.eq(said .. r.data.text, "You ***, and you ***")
    end,
    ["part of a longer word"] = function(t)
      local r = t.emit("serve.chunk", {request_id = "r", choice = 0, text = "Scunthorpe.", eof = true})
      t.eq(r.data.text, "Scunthorpe.")
    end,
    ["a request"] = function(t)
      local body = {messages = {{role = "user", content = "You IDIOT"}}}
      local r = t.emit("serve.request", {request_id = "r", key_id = "k", route = "x", body = body})
      t.eq(r.answer, "veto") t.eq(r.reason, "the request holds a word of the list")
    end,
    ["a whole answer"] = function(t)
      local r = t.emit("serve.response", {choices = {{message = {content = "moron!"}}, {text = "a Moron"}}})
      t.eq(r.data.choices[1].message.content, "***!") t.eq(r.data.choices[2].text, "a ***")
    end,
  },
}

local longest, parts = 0, {}
for _, word in pairs(host.config.words) do
  longest = math.max(longest, #word)
  parts[#parts + 1] = "\\Q" .. word:gsub("\\E", "") .. "\\E"
end
local listed = host.regex("(?<!\\w)(?:" .. table.concat(parts, "|") .. ")(?!\\w)", "i")
local answer, request = host.config.answer, host.config.request

local function mask(text)
  local clean, n = listed:gsub(text, "***")
  if n > 0 then host.counter("masked", n) end
  return clean
end

-- Text of a request: a string, a list of strings or of {text = ...}.
local function each_text(value, change)
  if type(value) == "string" then return change(value) end
  if type(value) ~= "table" then return value end
  for key, inner in pairs(value) do
    if type(key) == "number" or key == "content" or key == "text" then
      value[key] = each_text(inner, change)
    end
  end
  return value
end

on("serve.request", function(body)
  if request == "allow" then return end
  local found = false
  local function change(text)
    if listed:find(text) then found = true end
    return request == "mask" and mask(text) or text
  end
  for _, key in ipairs {"messages", "prompt"} do
    body[key] = each_text(body[key], change)
  end
  if found and request == "refuse" then
    host.counter("refused_requests")
    return false, "the request holds a word of the list"
  end
end)

on("serve.response", function(reply)
  if answer == "allow" then return end
  for _, choice in ipairs(reply.choices or {}) do
    local where, key = choice, "text"
    if type(choice.message) == "table" then where, key = choice.message, "content" end
    if type(where[key]) == "string" and listed:find(where[key]) then
      if answer == "refuse" then return false, "the answer holds a word of the list" end
      where[key] = mask(where[key])
    end
  end
end)

-- stream.held is the word that has begun and may go on. One longer than every word of the list is
-- no such word: it is let go, and what follows of it too (stream.inside).
on("serve.chunk", function(text, eof, stream)
  if answer == "allow" then return end
  local all, done = (stream.held or "") .. text, ""
  if stream.inside then
    local stop = all:find("[^%w_\x80-\xff]")
    if not stop and not eof then stream.held = nil return all end
    done, all = all:sub(1, (stop or #all + 1) - 1), all:sub(stop or #all + 1)
    stream.inside = nil
  end
  local cut = eof and #all or #all:match("^(.-)[%w_\x80-\xff]*$")
  if #all - cut > longest then
    stream.inside, cut = true, #all
  end
  local now = all:sub(1, cut)
  stream.held = cut < #all and all:sub(cut + 1) or nil
  if answer == "refuse" and listed:find(now) then return false, "the answer holds a word of the list" end
  return done .. mask(now)
end)
