-- Answers a fresh access token, or who logs in, or how long to wait for whoever does.
-- include: login_slot.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] rejected: version of a token the upstream has refused, '' = none
-- ARGV[3] margin: a token that lapses within this many seconds is not fresh
-- ARGV[4] ttl: after this a login under way is given up, ms
-- ARGV[5] interval: pause between two logins through one egress, ms
-- ARGV[6] patience: how far ahead the login may start, ms; otherwise no slot is taken
-- ARGV[7] by_hand: 1 when an operator asks: death, a pause after a failure, being disabled don't count
-- returns fresh: {'fresh', token, token_expires_at, token_version}
-- returns claim: {'claim', fence, ms until the login may start, password, proxy, cookies, egress}
-- returns wait: {'wait', ms}: another one logs in; {'later', ms}: no slot within the patience
-- returns no: {'refused', reason, ms}: the last login failed; {'blocked', ms}: its egress rests; {'dead', reason}; {'disabled'}; {'missing'}
local id = ARGV[1]
local key = K_ACCOUNT .. id
local f = redis.call('HMGET', key, 'state', 'enabled', 'token', 'token_expires_at', 'token_version',
  'state_reason', 'password', 'proxy', 'cookies', 'egress')
if not f[1] then return {'missing'} end
if ARGV[7] ~= '1' then
  if f[1] == 'dead' then return {'dead', f[6]} end
  if f[2] ~= '1' then return {'disabled'} end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if f[3] ~= '' and f[5] ~= ARGV[2] and tonumber(f[4]) > now / 1000 + tonumber(ARGV[3]) then
  return {'fresh', f[3], f[4], f[5]}
end
local under_way = redis.call('PTTL', K_LOGIN .. id)
if under_way > 0 then return {'wait', under_way} end
local refused = redis.call('GET', K_LOGIN_REFUSED .. id)
if refused and ARGV[7] ~= '1' then return {'refused', refused, redis.call('PTTL', K_LOGIN_REFUSED .. id)} end
local rest = redis.call('PTTL', K_REST .. f[10])
if rest > 0 then return {'blocked', rest} end

local slot, free_at = take_login_slot(f[10], now, tonumber(ARGV[5]), tonumber(ARGV[6]))
if not slot then return {'later', free_at - now} end
local fence = redis.call('INCR', K_SERIAL)
redis.call('HSET', key, 'fence', fence)
redis.call('SET', K_LOGIN .. id, fence, 'PX', slot - now + tonumber(ARGV[4]))
return {'claim', fence, slot - now, f[7], f[8], f[9], f[10]}
