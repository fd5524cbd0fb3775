-- Reads what an operator sees of some accounts, and the time they were read at.
-- KEYS[1] tag: keys.POOL
-- ARGV[1...] accounts: their ids
-- returns rows: {epoch seconds, {row or false, …}}; a row has the fields in the order of `_FIELDS` in accounts.py
local rows = {}
for i = 1, #ARGV do
  local f = redis.call('HMGET', K_ACCOUNT .. ARGV[i], 'state', 'proxy', 'enabled', 'concurrency',
    'in_flight', 'token_expires_at', 'cooldowns', 'error_at', 'error_code', 'error_message',
    'added_at', 'last_used', 'state_reason', 'egress')
  rows[i] = f[1] and f or false
end
return {redis.call('TIME')[1], rows}
