-- Ends a reading of the model list: the new list is everybody's, or the old one stays a while.
-- KEYS[1] tag: the tag of the model list's keys
-- ARGV[1] token: names the claim
-- ARGV[2] list: the new list, '' when reading failed
-- ARGV[3] ttl: how long it is fresh, ms; after a failure: how long nobody tries again
-- returns ended: 1; 0 when the claim had lapsed and another process has one (nothing was written)
local owner = redis.call('GET', K_MODELS_CLAIM)
if owner and owner ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('SET', K_MODELS_CLAIM, 'failed', 'PX', ARGV[3])
  return 1
end
redis.call('SET', K_MODELS, ARGV[2])
redis.call('SET', K_MODELS_FRESH, 1, 'PX', ARGV[3])
redis.call('DEL', K_MODELS_CLAIM)
return 1
