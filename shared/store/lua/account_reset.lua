-- Ends every cooldown of an account, the rest of its egress, and the pause after a failed login.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] limit: leases per account unless it has its own limit
-- returns reset: 1; 0 when there is no such account
local id = ARGV[1]
local a = read(id)
if not a then return 0 end
a.cooldowns = {}
write_cooldowns(a)
if a.state == 'dead' then
  a.state = a.version ~= '' and 'ready' or 'new'
  redis.call('HSET', K_ACCOUNT .. id, 'state', a.state, 'state_reason', '')
end
redis.call('DEL', K_REST .. a.egress, K_LOGIN_REFUSED .. id)
list_egress(a.egress)
place(a, tonumber(ARGV[2]))
count_state(a)
wake(clock_ms())
return 1
