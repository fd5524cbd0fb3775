-- A job process begins a step, unless it is done or another one is at it.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] step: its id
-- returns begun: 1; 0 when there is nothing to do
local what = redis.call('HGET', K_DUE_STEPS, ARGV[1])
if not what then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if (tonumber(redis.call('ZSCORE', K_DUE_RUNNING, ARGV[1])) or 0) > now then return 0 end
local til = now + cjson.decode(what).claim_ms
redis.call('ZADD', K_DUE_RUNNING, til, ARGV[1])
redis.call('ZADD', K_DUE, til, ARGV[1])
return 1
