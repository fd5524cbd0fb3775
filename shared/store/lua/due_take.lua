-- Takes what is due; what its taker does not finish in time is due again.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] limit: how many at most
-- returns taken: {step, JSON, tries, step, JSON, tries, …}, the longest due first
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local taken = {}
for _, step in ipairs(redis.call('ZRANGEBYSCORE', K_DUE, '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local what = redis.call('HGET', K_DUE_STEPS, step)
  if what then
    redis.call('ZADD', K_DUE, now + cjson.decode(what).claim_ms, step)
    taken[#taken + 1] = step
    taken[#taken + 1] = what
    taken[#taken + 1] = redis.call('HINCRBY', K_DUE_TRIES, step, 1)
  else
    redis.call('ZREM', K_DUE, step)
  end
end
return taken
