-- A step that was begun is to be done again later.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] step: its id
-- ARGV[2] delay: from now, ms
-- ARGV[3] fewer: 1 when it was no try and doesn't count as one, else 0
-- returns kept: 1; 0 when it had ended
redis.call('ZREM', K_DUE_RUNNING, ARGV[1])
if redis.call('HEXISTS', K_DUE_STEPS, ARGV[1]) == 0 then return 0 end
local t = redis.call('TIME')
redis.call('ZADD', K_DUE, t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2]), ARGV[1])
redis.call('HINCRBY', K_DUE_TRIES, ARGV[1], -ARGV[3])
return 1
