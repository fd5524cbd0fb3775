-- Cancels a batch: no further line of it is given out. What is under way may end.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- returns cancelled: 1; 0 when it had ended; -1 when there is none
local key = K_BATCH .. ARGV[1]
local state = redis.call('HGET', key, 'state')
if not state or state == 'reading' then return -1 end
if state ~= 'queued' and state ~= 'running' then return 0 end
redis.call('HSET', key, 'state', 'cancelled', 'finished_at', clock_ms())
redis.call('ZREM', K_BATCH_ROTATION, ARGV[1])
redis.call('EXPIRE', K_BATCH_INPUTS .. ARGV[1], INPUT_LIFE_S)
return 1
