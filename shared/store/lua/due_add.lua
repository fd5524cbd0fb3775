-- Puts a step down to be done later; one that is there already is only moved earlier.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] step: its id
-- ARGV[2] what: JSON {job, arguments, claim_ms, queue}
-- ARGV[3] delay: from now, ms
-- returns added: 1; 0 when it was there already
local t = redis.call('TIME')
local at = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[3])
if redis.call('HSETNX', K_DUE_STEPS, ARGV[1], ARGV[2]) == 1 then
  redis.call('ZADD', K_DUE, at, ARGV[1])
  return 1
end
if not redis.call('ZSCORE', K_DUE_RUNNING, ARGV[1]) then
  redis.call('ZADD', K_DUE, 'LT', at, ARGV[1])
end
return 0
