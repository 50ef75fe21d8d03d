-- A metric in ten lines: does the answer give exactly the numbers of the reference?
plugin {name = "numbers", version = "1.0", summary = "metric: the answer's numbers are the reference's",
        tests = {["counts numbers, not words"] = function(t)
          local function score(p) return t.emit("eval.metric", {prediction = p,
            reference = "It takes 2 hours and 15 minutes.", scores = {}}).data.scores.numbers end
          t.eq(score("2 hours, 15 minutes"), 1) t.eq(score("15 minutes"), 0) t.eq(score("2, 15, 3"), 0)
        end}}

local function numbers(text)
  local found = {}
  for n in text:gmatch("%d[%d.,]*") do found[#found + 1] = (n:gsub("[.,]+$", "")) end
  return table.concat(found, " ")
end

on("eval.metric", function(example)
  if example.prediction == host.null then return end -- nothing was asked
  return {numbers = numbers(example.prediction) == numbers(example.reference) and 1 or 0}
end)
