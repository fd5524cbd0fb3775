-- Which of some accounts need a new access token.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] within: a token that lapses within this many seconds is due
-- ARGV[2...] accounts: their ids
-- returns due: the accounts that are enabled, not dead, and whose token lapses or is missing
local deadline = redis.call('TIME')[1] + tonumber(ARGV[1])
local due = {}
for i = 2, #ARGV do
  local f = redis.call('HMGET', K_ACCOUNT .. ARGV[i], 'state', 'enabled', 'token_expires_at')
  if f[1] and f[1] ~= 'dead' and f[2] == '1' and (tonumber(f[3]) or 0) < deadline then
    due[#due + 1] = ARGV[i]
  end
end
return due
