-- Brings back lines whose process died, and tells how many batches have lines that wait.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- returns batches: how many
reclaim_lines(clock_ms())
return redis.call('ZCARD', K_BATCH_ROTATION)
