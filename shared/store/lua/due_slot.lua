-- Puts periodic work down once per slot of its period, however many ask; a missed slot counts once.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] name: of the work; its step is `<name>-<slot>`
-- ARGV[2] period: ms; a slot is a period's number since the epoch
-- ARGV[3] what: JSON {job, arguments, claim_ms, queue}
-- returns step: its id; '' when this slot was put down before or the last step isn't done yet
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local slot = string.format('%d', math.floor(now / tonumber(ARGV[2])))
local last = redis.call('HGET', K_DUE_SLOTS, ARGV[1])
if last == slot then return '' end
if last and redis.call('HEXISTS', K_DUE_STEPS, ARGV[1] .. '-' .. last) == 1 then return '' end
local step = ARGV[1] .. '-' .. slot
redis.call('HSET', K_DUE_SLOTS, ARGV[1], slot)
redis.call('HSET', K_DUE_STEPS, step, ARGV[3])
redis.call('ZADD', K_DUE, now, step)
return step
