-- Steps by queue and state. There are few at any moment: a batch or a tick is one step at a time.
-- KEYS[1] tag: keys.DUE
-- returns counts: {queue, state, count, queue, state, count, …}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local counts = {}
local function count(what, state)
  local name = cjson.decode(what).queue .. ' ' .. state
  counts[name] = (counts[name] or 0) + 1
end
local steps = redis.call('HGETALL', K_DUE_STEPS)
for i = 1, #steps, 2 do
  if (tonumber(redis.call('ZSCORE', K_DUE_RUNNING, steps[i])) or 0) > now then
    count(steps[i + 1], 'running')
  elseif (tonumber(redis.call('ZSCORE', K_DUE, steps[i])) or 0) > now then
    count(steps[i + 1], 'later')
  else
    count(steps[i + 1], 'due')
  end
end
for _, failed in ipairs(redis.call('LRANGE', K_DUE_FAILED, 0, -1)) do
  count(failed, 'failed')
end
local flat = {}
for name, number in pairs(counts) do
  local queue, state = string.match(name, '(%S+) (%S+)')
  flat[#flat + 1] = queue
  flat[#flat + 1] = state
  flat[#flat + 1] = number
end
return flat
