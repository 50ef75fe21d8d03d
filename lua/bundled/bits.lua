-- A metric in ten lines: how many bits the model needs for a byte of the text it should say. It is
-- shown, and judged by no statistics (info); the script `gate` may hold candidates to it.
plugin {name = "bits", version = "1.0", summary = "metric: bits per byte of the reference",
        tests = {["bits"] = function(t)
          local r = t.emit("eval.metric", {nats = 2 * math.log(2), bytes = 4, scores = {}})
          t.eq(r.data.scores.bits_per_byte.value, 0.5)
        end}}

on("eval.metric", function(example)
  if example.nats == host.null or example.bytes == 0 then return end -- nothing was scored
  local bits = example.nats / math.log(2) / example.bytes
  return {bits_per_byte = {value = bits, smaller_is_better = true, info = true}}
end)
