-- Watches the loss of a run: where it climbs, the learning rate is cut; where it falls again, the
-- rate comes back step by step; where cutting does not help, the run ends with what it has.
plugin {
  name = "governor", version = "1.0",
  summary = "cuts the learning rate where the loss climbs, ends a run that is lost",
  settings = {
    climb = {type = "number", default = 1.5, min = 1, help = "times its running mean: the loss climbs"},
    patience = {type = "integer", default = 2, min = 1, help = "steps in a row before the rate is cut"},
    cut = {type = "number", default = 0.5, min = 0.01, max = 0.99, help = "what the rate is multiplied by"},
    recover = {type = "number", default = 1.05, min = 1, max = 2, help = "and by each quiet step after it"},
    floor = {type = "number", default = 0.01, min = 0, max = 1, help = "a rate below it ends the run"},
    warmup = {type = "integer", default = 10, min = 0, help = "steps that are only watched"},
  },
  tests = {
    ["cuts, recovers, ends"] = function(t)
      local scale = 1
      local function step(n, loss)
        local r = t.emit("train.step", {step = n, loss = loss, lr_scale = scale, save = false})
        if r.answer == "veto" then return r.reason end
        scale = r.data.lr_scale
      end
      for n = 1, 20 do step(n, 2) end
      t.eq(scale, 1)
      step(21, 9) t.eq(scale, 1)
      step(22, 9) t.eq(scale, 0.5)
      for n = 23, 60 do step(n, 2) end
      t.eq(scale, 1)
      t.eq(step(61, host.null), "the loss is not a number")
    end,
  },
}

local c = host.config
local mean, climbing

on("train.step", function(s)
  if s.loss == host.null or s.loss ~= s.loss then return "stop", "the loss is not a number" end
  if mean == nil or s.step <= c.warmup then
    mean = mean and 0.9 * mean + 0.1 * s.loss or s.loss
    climbing = 0
    return
  end
  local scale = s.lr_scale
  if s.loss > c.climb * mean then
    climbing = climbing + 1
    if climbing < c.patience then return end
    climbing = 0
    scale = scale * c.cut
    if scale < c.floor then
      return "stop", ("the loss is %.3g, its mean was %.3g, at %.2g of the rate"):format(s.loss, mean, s.lr_scale)
    end
    host.log("info", ("step %d: loss %.3g, mean %.3g: the rate goes to %.3g of the schedule's"):format(
             s.step, s.loss, mean, scale))
    host.counter("cuts")
  else
    climbing = 0
    mean = 0.95 * mean + 0.05 * s.loss
    scale = math.min(1, scale * c.recover)
  end
  if scale ~= s.lr_scale then return {lr_scale = scale} end
end)
