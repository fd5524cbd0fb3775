-- Writes the new access token, unless a later login was begun for this account.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] fence: of the claim
-- ARGV[3] token: sealed
-- ARGV[4] expires: epoch seconds
-- ARGV[5] limit: leases per account unless it has its own limit
-- returns stored: 1
-- returns refused: 0 when the fence is lower than the account's, or the account is gone
local id = ARGV[1]
local key = K_ACCOUNT .. id
local fence = redis.call('HGET', key, 'fence')
if not fence or tonumber(ARGV[2]) < tonumber(fence) then return 0 end
redis.call('HSET', key, 'token', ARGV[3], 'token_expires_at', ARGV[4], 'token_version', ARGV[2],
  'token_at', redis.call('TIME')[1], 'state', 'ready', 'state_reason', '')
redis.call('DEL', K_LOGIN .. id, K_LOGIN_REFUSED .. id)
local a = read(id)
place(a, tonumber(ARGV[5]))
count_state(a)
redis.call('PUBLISH', C_LOGINS, id)
wake(clock_ms())
return 1
