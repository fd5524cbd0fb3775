-- Notes which keys were used and says whether any key has changed.
-- KEYS[1] tag: the tag of the API keys
-- ARGV[1...] used: ids of keys used since the last call; one of `API_KEY`, which has no record, ends in +
-- returns watched: {version, epoch seconds}
local now = redis.call('TIME')[1]
for i = 1, #ARGV do
  local id, configured = string.match(ARGV[i], '^(.-)(%+?)$')
  if configured == '+' or redis.call('HEXISTS', K_API_KEYS, id) == 1 then
    redis.call('HSET', K_API_KEY_USED, id, now)
  end
end
return {redis.call('GET', K_API_KEYS_VERSION) or '0', now}
