-- Watches the loss of a run: where it climbs, the learning rate is cut; where it falls again, the
-- rate comes back step by step; where cutting does not help, the run ends with what it has.
plugin {
  name = "governor", version = "1.0",
  summary = "cuts the learning rate where the loss climbs, ends a run that is lost",
  settings = {
    climb = {type = "number", default = 1.5, min = 1, help = "times its running mean: the loss climbs"},
    noise = {type = "number", default = 6, min = 0,
             help = "and so many times its mean deviation above it: small losses jump about"},
    patience = {type = "integer", default = 3, min = 1, help = "steps in a row before the rate is cut"},
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
      step(21, 9) step(22, 9) t.eq(scale, 1)
      step(23, 9) t.eq(scale, 0.5)
      for n = 24, 60 do step(n, 2) end
      t.eq(scale, 1)
      t.eq(step(61, host.null), "the loss is not a number")
    end,
    ["small losses that jump about are no climb"] = function(t)
      for n = 1, 500 do
        local loss = 0.001 + 0.15 * (n * 7 % 11) / 11 * (n * 5 % 3) / 3
        local r = t.emit("train.step", {step = n, loss = loss, lr_scale = 1.0, save = false})
        t.eq(r.data.lr_scale, 1.0)
      end
    end,
  },
}

local c = host.config
local mean, deviation, climbing

-- Moves mean and deviation towards the loss by `share` of the way.
local function follow(loss, share)
  deviation = deviation + share * (math.abs(loss - mean) - deviation)
  mean = mean + share * (loss - mean)
end

on("train.step", function(s)
  if s.loss == host.null or s.loss ~= s.loss then return "stop", "the loss is not a number" end
  if mean == nil then mean, deviation, climbing = s.loss, 0, 0 end
  local scale = s.lr_scale
  local high = s.loss > c.climb * mean and s.loss > mean + c.noise * deviation
  if s.step <= c.warmup or not high then
    climbing = 0
    follow(s.loss, s.step <= c.warmup and 0.2 or 0.05)
    scale = math.min(1, scale * c.recover)
  else
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
  end
  if scale ~= s.lr_scale then return {lr_scale = scale} end
end)
