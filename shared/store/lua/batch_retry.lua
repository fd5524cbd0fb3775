-- Lines of a batch that failed wait again, some at a time; a cancelled one goes on where it was.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] most: lines at once
-- returns retried: how many; -1 when there is no such batch
local batch = ARGV[1]
local key = K_BATCH .. batch
local state = redis.call('HGET', key, 'state')
if not state or state == 'reading' then return -1 end
local failed = redis.call('ZRANGE', K_BATCH_FAILED .. batch, 0, tonumber(ARGV[2]) - 1)
for _, member in ipairs(failed) do
  local line, egress = string.match(member, '^(%d+):(.*)$')
  redis.call('ZREM', K_BATCH_FAILED .. batch, member)
  redis.call('HDEL', K_BATCH_TRIES .. batch, line)
  local result = cjson.decode(redis.call('HGET', K_BATCH_LINES .. batch, line))
  result.status, result.message = 'waiting', ''
  redis.call('HSET', K_BATCH_LINES .. batch, line, cjson.encode(result))
  redis.call('HINCRBY', key, 'failed', -1)
  redis.call('HINCRBY', key, 'processed', -1)
  wait_line(batch, egress, line, line)
end
if #failed > 0 or state == 'cancelled' then
  redis.call('HSET', key, 'state', 'running', 'finished_at', '')
  redis.call('LTRIM', K_BATCH_RECENT .. batch, 1, 0)
  keep(batch, BATCH_LIFE_S)
  rotate(batch)
  settle(batch, clock_ms())
end
return #failed
