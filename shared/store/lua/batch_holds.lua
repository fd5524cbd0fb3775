-- Whether a line is still its claimer's to begin.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] line: its number
-- ARGV[3] fence: of the claim
-- returns holds: 1; 0 when the claim is another's by now or the batch was cancelled
if not claim_of(ARGV[1], ARGV[2], ARGV[3]) then return 0 end
return redis.call('HGET', K_BATCH .. ARGV[1], 'state') == 'running' and 1 or 0
