-- Ends a login that failed: everybody who waits for it hears the reason.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] fence: of the claim
-- ARGV[3] code: short word for the failure
-- ARGV[4] reason: one sentence for an operator
-- ARGV[5] dead: 1 when the account can't log in until an operator mends it
-- ARGV[6] pause: no further login of this account for so long, ms; the account rests meanwhile
-- ARGV[7] limit: leases per account unless it has its own limit
-- ARGV[8] rest: '' or JSON {ms, reason}: the firewall refused the egress, the account is not to blame
-- ARGV[9] egress: of the claim
-- returns noted: 1
-- returns refused: 0 when the fence is lower than the account's, or the account is gone since
local id = ARGV[1]
local key = K_ACCOUNT .. id
local now = clock_ms()
local fence = redis.call('HGET', key, 'fence')
if not fence and redis.call('GET', K_LOGIN .. id) == ARGV[2] then
  -- An account that was to be added: nothing is kept of it.
  redis.call('DEL', K_LOGIN .. id)
  if ARGV[8] ~= '' then rest_egress(ARGV[9], cjson.decode(ARGV[8]), now) end
  redis.call('PUBLISH', C_LOGINS, id)
  return 1
end
if not fence or tonumber(ARGV[2]) < tonumber(fence) then return 0 end
local pause = tonumber(ARGV[6])
redis.call('DEL', K_LOGIN .. id)
redis.call('HSET', key, 'error_at', math.floor(now / 1000), 'error_code', ARGV[3],
  'error_message', ARGV[4])
local a = read(id)
if ARGV[5] == '1' then
  a.state = 'dead'
  redis.call('HSET', key, 'state', 'dead', 'state_reason', ARGV[4])
elseif pause > 0 then
  redis.call('SET', K_LOGIN_REFUSED .. id, ARGV[4], 'PX', pause)
  for _, c in ipairs(CAPABILITIES) do
    cool(a, c, {ms = pause, cap_ms = pause, reason = ARGV[3]}, now)
  end
  write_cooldowns(a)
end
if ARGV[8] ~= '' then rest_egress(a.egress, cjson.decode(ARGV[8]), now) end
place(a, tonumber(ARGV[7]))
count_state(a)
redis.call('PUBLISH', C_LOGINS, id)
return 1
