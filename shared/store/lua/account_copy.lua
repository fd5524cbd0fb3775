-- Reads what makes an account come back elsewhere; secrets are sealed.
-- KEYS[1] tag: keys.POOL
-- ARGV[1...] accounts: their ids
-- returns rows: {row or false, …}; a row has the fields in the order of `_COPIED` in backup.py
local rows = {}
for i = 1, #ARGV do
  local f = redis.call('HMGET', K_ACCOUNT .. ARGV[i], 'password', 'proxy', 'cookies', 'token',
    'enabled', 'concurrency', 'token_expires_at', 'token_at')
  rows[i] = f[1] and f or false
end
return rows
