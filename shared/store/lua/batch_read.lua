-- Reads batches: their counters, the lines under way, the newest that ended.
-- KEYS[1] tag: keys.POOL
-- ARGV[1...] batches: their ids
-- returns batches: {false or {fields and values, {result of a line under way, …}, {line, result, …}}, …}
local rows, under_way = {}, {}
for _, member in ipairs(redis.call('ZRANGE', K_BATCH_RUNNING, 0, -1)) do
  local batch, line = string.match(member, '^([^:]+):(%d+)$')
  under_way[batch] = under_way[batch] or {}
  table.insert(under_way[batch], redis.call('HGET', K_BATCH_LINES .. batch, line))
end
for i = 1, #ARGV do
  local batch = ARGV[i]
  local fields = redis.call('HGETALL', K_BATCH .. batch)
  local state = redis.call('HGET', K_BATCH .. batch, 'state')
  rows[i] = false
  if state and state ~= 'reading' then
    local recent = {}
    for _, line in ipairs(redis.call('LRANGE', K_BATCH_RECENT .. batch, 0, -1)) do
      recent[#recent + 1] = line
      recent[#recent + 1] = redis.call('HGET', K_BATCH_LINES .. batch, line)
    end
    rows[i] = {fields, under_way[batch] or {}, recent}
  end
end
return rows
