-- Stores and removes settings if they are still as the writer read them, and writes down who did.
-- KEYS[1] tag: keys.SETTINGS
-- ARGV[1] version: the one the writer read
-- ARGV[2] most: entries of the audit that are kept
-- ARGV[3...] changes: name, value ('' = not stored any more), entry of the audit
-- returns written: the new version; '' when they were changed meanwhile
local version = redis.call('GET', K_SETTINGS_VERSION) or '0'
if version ~= ARGV[1] then return '' end
local t = redis.call('TIME')
for i = 3, #ARGV, 3 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', K_SETTINGS, ARGV[i])
  else
    redis.call('HSET', K_SETTINGS, ARGV[i], ARGV[i + 1])
  end
  redis.call('LPUSH', K_SETTINGS_AUDIT, t[1] .. ' ' .. ARGV[i + 2])
end
redis.call('LTRIM', K_SETTINGS_AUDIT, 0, tonumber(ARGV[2]) - 1)
-- A moment and no number: a Redis that lost everything must not come to a version seen before.
local new = string.format('%d.%06d', t[1], t[2])
if new == version then new = new .. '+' end
redis.call('SET', K_SETTINGS_VERSION, new)
return new
