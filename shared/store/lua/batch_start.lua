-- All lines of a batch are put down: it can be seen, and they are done from now on.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- returns started: 1; 0 when the batch is gone
local batch = ARGV[1]
local key = K_BATCH .. batch
if redis.call('HGET', key, 'state') ~= 'reading' then return 0 end
local now = clock_ms()
redis.call('HSET', key, 'state', 'queued', 'created_at', now)
keep(batch, BATCH_LIFE_S)
redis.call('ZADD', K_BATCHES, now, batch)
redis.call('ZREMRANGEBYSCORE', K_BATCHES, '-inf', now - BATCH_LIFE_S * 1000)
rotate(batch)
settle(batch, now)
return 1
