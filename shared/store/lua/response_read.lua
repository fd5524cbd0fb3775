-- Reads responses.
-- KEYS[1] tag: keys.RESPONSES
-- ARGV[1] field: 'work', or 'result'
-- ARGV[2] id: the first of them
-- ARGV[3...] id: the others
-- returns records: {owner, status, request, field} each, in this order; {} for one that isn't there
local records = {}
for n = 2, #ARGV do
  local f = redis.call('HMGET', K_RESPONSE .. ARGV[n], 'owner', 'status', 'request', ARGV[1])
  records[#records + 1] = f[1] and {f[1], f[2], f[3], f[4] or ''} or {}
end
return records
