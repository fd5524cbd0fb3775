-- Writes or removes an API key if it is still as the writer read it, and tells every process.
-- KEYS[1] tag: the tag of the API keys
-- ARGV[1] id: of the key
-- ARGV[2] expected: the record as it was read, '' = there is none
-- ARGV[3] record: the new one, '' = remove it
-- returns written: 1; 0 when it was changed meanwhile
local found = redis.call('HGET', K_API_KEYS, ARGV[1]) or ''
if found ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', K_API_KEYS, ARGV[1])
  redis.call('HDEL', K_API_KEY_USED, ARGV[1])
else
  redis.call('HSET', K_API_KEYS, ARGV[1], ARGV[3])
end
redis.call('INCR', K_API_KEYS_VERSION)
return 1
