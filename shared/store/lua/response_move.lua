-- Moves a response on that has not ended; one that has stays as it is.
-- include: responses.lua
-- KEYS[1] tag: keys.RESPONSES
-- ARGV[1] id: of the response
-- ARGV[2] status: in_progress, or how it ended
-- ARGV[3] result: sealed; '' when there is none
-- ARGV[4] ttl: ms
-- ARGV[5] most: bytes that one owner may keep
-- returns moved: {1, status}
-- returns ended: {0, status}: it had ended before
-- returns gone: {0}
local record = K_RESPONSE .. ARGV[1]
local f = redis.call('HMGET', record, 'status', 'owner', 'work')
if not f[1] then return {0} end
if f[1] ~= 'queued' and f[1] ~= 'in_progress' then return {0, f[1]} end
redis.call('HSET', record, 'status', ARGV[2])
if ARGV[2] ~= 'in_progress' then
  redis.call('HDEL', record, 'work')
  if ARGV[3] ~= '' then redis.call('HSET', record, 'result', ARGV[3]) end
  local bytes = #ARGV[3] - #(f[3] or '')
  add_to_responses(f[2], ARGV[1], bytes, tonumber(ARGV[4]), tonumber(ARGV[5]))
end
return {1, ARGV[2]}
