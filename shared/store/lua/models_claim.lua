-- Lets one process read the model list from the upstream.
-- KEYS[1] tag: the tag of the model list's keys
-- ARGV[1] token: names the claim
-- ARGV[2] ttl: life of the claim, ms
-- ARGV[3] forced: 1 to claim although the list is fresh
-- returns claimed: 1; 0 when the list is fresh or another process reads it
if ARGV[3] ~= '1' and redis.call('EXISTS', K_MODELS_FRESH) == 1 then return 0 end
return redis.call('SET', K_MODELS_CLAIM, ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
