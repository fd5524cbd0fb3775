-- Begins to put a batch down; nobody sees it before `batch_start`, and forgotten it is gone in 1 h.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] kind: import | refresh
-- returns opened: 1
local key = K_BATCH .. ARGV[1]
redis.call('HSET', key, 'kind', ARGV[2], 'state', 'reading', 'total', 0, 'valid', 0, 'invalid', 0,
  'skipped', 0, 'processed', 0, 'succeeded', 0, 'failed', 0, 'created_at', '', 'started_at', '',
  'finished_at', '', 'last', 0)
redis.call('EXPIRE', key, 3600)
return 1
