-- The pool in numbers, for metrics and readiness.
-- KEYS[1] tag: keys.POOL
-- returns numbers: {new, ready, cooling, disabled, dead, leases in flight}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local new = redis.call('ZCARD', K_STATE .. 'new')
local ready = redis.call('ZCARD', K_STATE .. 'ready')
local cooling_new = redis.call('ZCOUNT', K_STATE .. 'new', '(' .. now, '+inf')
local cooling_ready = redis.call('ZCOUNT', K_STATE .. 'ready', '(' .. now, '+inf')
return {
  new - cooling_new, ready - cooling_ready, cooling_new + cooling_ready,
  redis.call('ZCARD', K_STATE .. 'disabled'), redis.call('ZCARD', K_STATE .. 'dead'),
  redis.call('ZCOUNT', K_LEASES, '(' .. now, '+inf'),
}
