-- A reward for answers that end in a number, as in school sums: right, in the form that was asked
-- for, and not longer than need be. The mean over a file is the metric "reward".
plugin {
  name = "reward", version = "1.0",
  summary = "metric: a reward of 0 to 1 for answers that end in '#### NUMBER'",
  settings = {
    right = {type = "number", default = 0.8, min = 0, max = 1, help = "for the right number"},
    form = {type = "number", default = 0.1, min = 0, max = 1, help = "for '#### NUMBER' as the last line"},
    brief = {type = "number", default = 0.1, min = 0, max = 1,
             help = "for an answer of at most twice the reference's length"},
  },
  tests = {
    ["right, in form, brief"] = function(t)
      local function reward(p) return t.emit("eval.metric", {prediction = p, reference = "2+2\n#### 1,004",
        scores = {}}).data.scores.reward end
      t.eq(reward("so\n#### 1004"), 1.0)
      t.eq(reward("so 1004."), 0.9)
      t.eq(reward("so\n#### 1005"), 0.2)
      t.eq(reward(""), 0.1)
    end,
  },
}

-- The last number of the text, as a number, and whether it stands where it should.
local function read(text)
  local last, formed = nil, text:match("####%s*(%-?%$?[%d.,]+)%s*$")
  for n in text:gmatch("%-?%d[%d.,]*") do last = n end
  local plain = (formed or last or ""):gsub("[,$]", ""):gsub("%.$", "")
  return tonumber(plain), formed ~= nil
end

on("eval.metric", function(example)
  if example.prediction == host.null then return end
  local got, formed = read(example.prediction)
  local want = read(example.reference)
  local c, sum = host.config, 0
  if got ~= nil and got == want then sum = sum + c.right end
  if formed then sum = sum + c.form end
  if #example.prediction <= 2 * #example.reference then sum = sum + c.brief end
  return {reward = math.floor(sum * 1e6 + 0.5) / 1e6}
end)
