-- Steps by state.
-- KEYS[1] tag: keys.DUE
-- returns counts: {due, later, running, failed}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZCOUNT', K_DUE, '-inf', now)
local running = redis.call('ZCOUNT', K_DUE_RUNNING, '(' .. now, '+inf')
local later = redis.call('ZCARD', K_DUE) - due - running
return {due, math.max(0, later), running, redis.call('LLEN', K_DUE_FAILED)}
