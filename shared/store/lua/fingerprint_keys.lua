-- Adds to the keys that fingerprints are recognised by; the first one ever added stays the one in use.
-- KEYS[1] tag: keys.API_KEYS
-- ARGV[1...] pairs: id, sealed key, id, sealed key …
-- returns known: {id of the one in use, id, sealed key, …}
local first = redis.call('HGET', K_FINGERPRINT_KEYS, 'first')
for i = 1, #ARGV, 2 do
  local new = redis.call('HSETNX', K_FINGERPRINT_KEYS, ARGV[i], ARGV[i + 1]) == 1
  if new and first then redis.call('INCR', K_API_KEYS_VERSION) end
end
if not first then
  first = ARGV[1]
  redis.call('HSET', K_FINGERPRINT_KEYS, 'first', first)
end
local known = redis.call('HGETALL', K_FINGERPRINT_KEYS)
table.insert(known, 1, first)
return known
