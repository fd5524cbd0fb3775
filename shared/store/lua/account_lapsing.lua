-- Which of some accounts get a new access token ahead of time: those whose token lapses soon.
-- An account's own moment lies between one and two leads before the end, a lead being as long as
-- asked for or a quarter of the token's life: what was given just now isn't renewed just now.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] lead: s
-- ARGV[2] least: no lead is shorter, s; unless that were more than half of the token's life
-- ARGV[3] pause: an account with an error younger than this is left alone, s
-- ARGV[4...] accounts: their ids
-- returns due: {account, token_expires_at, token_version, egress, …}
local now = tonumber(redis.call('TIME')[1])
local lead, least, pause = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local f = redis.call('HMGET', K_ACCOUNT .. id, 'state', 'enabled', 'token_expires_at',
    'token_version', 'egress', 'token_at', 'error_at')
  local failed = (tonumber(f[7]) or 0) > now - pause
  if f[1] == 'ready' and f[2] == '1' and not failed then
    local expires, given_at = tonumber(f[3]), tonumber(f[6])
    local share = tonumber(string.sub(redis.sha1hex(id .. ':' .. f[4]), 1, 8), 16) / 2 ^ 32
    local own = lead * (1 + share)
    if given_at then
      local life = expires - given_at
      own = math.min(lead, math.max(least, life / 4)) * (1 + share)
      own = math.min(own, life / 2)
    end
    if expires - now < own then
      for _, word in ipairs({id, f[3], f[4], f[5]}) do due[#due + 1] = word end
    end
  end
end
return due
