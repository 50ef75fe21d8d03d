-- A gate of the house: rules that a candidate must keep beside the statistics. It can only be
-- stricter than what was decided before it.
plugin {
  name = "gate", version = "1.0",
  summary = "holds candidates to floors, to a largest loss and to a least number of examples",
  settings = {
    metric = {type = "text", default = "", help = "the rules are about this one; '': about all"},
    least = {type = "number", default = -1e30, help = "what a metric must be, where larger is better"},
    most = {type = "number", default = 1e30, help = "what a metric may be, where smaller is better"},
    worse = {type = "number", default = 1e30, min = 0, help = "how much worse than live it may be"},
    examples = {type = "integer", default = 0, min = 0, help = "with fewer, nothing is concluded"},
  },
  tests = {
    ["no rules, no word"] = function(t)
      local r = t.emit("promote.gate", {verdict = "pass", reasons = {}, feedback = host.null,
        holdout = {n = 9, metrics = {acc = {before = 0.5, after = 0.4}}}})
      t.eq(r.answer, "modified") t.eq(r.data.verdict, "pass")
    end,
  },
}

local c = host.config

-- What is wrong with one metric, or nil.
local function fault(where, name, m)
  local down = m.smaller_is_better == true
  local lost = down and m.after - m.before or m.before - m.after
  if not down and m.after < c.least then
    return ("%s %s is %.4g, at least %.4g"):format(where, name, m.after, c.least)
  elseif down and m.after > c.most then
    return ("%s %s is %.4g, at most %.4g"):format(where, name, m.after, c.most)
  elseif lost > c.worse then
    return ("%s %s is worse than live by %.4g, at most %.4g"):format(where, name, lost, c.worse)
  end
end

on("promote.gate", function(report)
  local judged = 0
  for _, where in ipairs {"holdout", "feedback"} do
    local part = report[where]
    if type(part) == "table" then
      if (part.n or 0) < c.examples then
        return "inconclusive", ("%s has %d examples, %d are wanted"):format(where, part.n or 0, c.examples)
      end
      for name, m in pairs(part.metrics or {}) do
        if (c.metric == "" or c.metric == name) and type(m.after) == "number" then
          judged = judged + 1
          local why = fault(where, name, m)
          if why then return "fail", why end
        end
      end
    end
  end
  if judged == 0 then return "inconclusive", "no metric of its rules was measured" end
  return report.verdict, ("%d figures keep the rules"):format(judged)
end)
