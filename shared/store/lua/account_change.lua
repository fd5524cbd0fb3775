-- Changes fields of an account an operator may set; in force with the next lease.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] limit: leases per account unless it has its own limit
-- ARGV[3...] pairs: field, value, field, value … of enabled, concurrency, proxy, egress, cookies, password
-- returns changed: 1; 0 when there is no such account
local id = ARGV[1]
if redis.call('EXISTS', K_ACCOUNT .. id) == 0 then return 0 end
redis.call('HSET', K_ACCOUNT .. id, unpack(ARGV, 3))
for i = 3, #ARGV, 2 do
  if ARGV[i] == 'password' then
    -- What it was signed in with, what was said of it: that was another password.
    redis.call('HSET', K_ACCOUNT .. id, 'token', '', 'token_expires_at', '', 'token_version', '',
      'state', 'new', 'state_reason', '', 'fence', redis.call('INCR', K_SERIAL))
    redis.call('DEL', K_LOGIN_REFUSED .. id, K_LOGIN .. id)
  end
end
local a = read(id)
place(a, tonumber(ARGV[2]))
count_state(a)
wake(clock_ms())
return 1
