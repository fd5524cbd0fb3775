-- Removes an account; leases of it that are still held end without effect.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- returns removed: 1; 0 when there was none
local id = ARGV[1]
local a = read(id)
if not a then return 0 end
a.enabled = false
place(a, 1)
for _, state in ipairs({'new', 'ready', 'disabled', 'dead'}) do
  redis.call('ZREM', K_STATE .. state, id)
end
redis.call('ZREM', K_ACCOUNTS, id)
redis.call('DEL', K_ACCOUNT .. id, K_LOGIN .. id, K_LOGIN_REFUSED .. id)
redis.call('PUBLISH', C_LOGINS, id)
return 1
