-- Admits one request of an API key, or says how long it must wait (GCRA).
-- KEYS[1] string: the moment the allowance is full again, µs
-- ARGV[1] limit: requests per minute; so many are admitted at once, then they refill evenly
-- returns answer: {admitted 0|1, remaining, µs until the allowance is full, µs until one is admitted}
local limit = tonumber(ARGV[1])
local step = 60000000 / limit
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local after = full_at + step
local allowed_at = after - 60000000
-- Half a microsecond: `step` is no whole number for every limit.
if allowed_at > now + 0.5 then
  return {0, 0, math.ceil(full_at - now), math.ceil(allowed_at - now)}
end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', math.ceil((after - now) / 1000))
return {1, math.floor((now + 60000000 - after + 0.5) / step), math.ceil(after - now), 0}
