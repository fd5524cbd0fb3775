-- A step that is under way stays its process's for another claim.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] step: its id
-- returns extended: 1; 0 when it has ended (done, given up, cancelled)
local what = redis.call('HGET', K_DUE_STEPS, ARGV[1])
if not what then return 0 end
local t = redis.call('TIME')
local til = t[1] * 1000 + math.floor(t[2] / 1000) + cjson.decode(what).claim_ms
redis.call('ZADD', K_DUE_RUNNING, til, ARGV[1])
redis.call('ZADD', K_DUE, til, ARGV[1])
return 1
