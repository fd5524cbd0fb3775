-- Answers who logs in an account that isn't there yet: it is added when its login went well.
-- include: login_slot.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] egress: the name of the egress address
-- ARGV[3] ttl: after this a login under way is given up, ms
-- ARGV[4] interval: pause between two logins through one egress, ms
-- ARGV[5] patience: how far ahead the login may start, ms; otherwise no slot is taken
-- returns claim: {'claim', fence, ms until the login may start}
-- returns wait: {'wait', ms}: another one adds it; {'later', ms}: no slot within the patience
-- returns no: {'exists'}; {'blocked', ms}: its egress rests
local id, egress = ARGV[1], ARGV[2]
if redis.call('EXISTS', K_ACCOUNT .. id) == 1 then return {'exists'} end
local under_way = redis.call('PTTL', K_LOGIN .. id)
if under_way > 0 then return {'wait', under_way} end
local rest = redis.call('PTTL', K_REST .. egress)
if rest > 0 then return {'blocked', rest} end

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local slot, free_at = take_login_slot(egress, now, tonumber(ARGV[4]), tonumber(ARGV[5]))
if not slot then return {'later', free_at - now} end
local fence = redis.call('INCR', K_SERIAL)
redis.call('SET', K_LOGIN .. id, fence, 'PX', slot - now + tonumber(ARGV[3]))
return {'claim', fence, slot - now}
