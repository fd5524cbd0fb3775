-- Lets one more turn of an API key begin, unless its turns at once or its tokens of the day are spent.
-- KEYS[1] tag: keys.LEDGER
-- ARGV[1] key: id of the API key
-- ARGV[2] token: the turn's own name; asking again under it is the same turn
-- ARGV[3] ttl: a turn that nobody extends for so long doesn't count any more, ms
-- ARGV[4] streams: turns at once, 0 = no limit
-- ARGV[5] budget: tokens a UTC day, 0 = no limit
-- ARGV[6] tokens: what this turn sets aside of them, or what the key's turns of today used on average
-- returns taken: {'taken', tokens set aside}
-- returns streams: {'streams', turns under way}
-- returns spent: {'spent', ms until the day ends}
-- returns reserved: {'reserved', 0}: what is left is set aside by turns under way
local DAY_MS = 86400000
local streams, budget, tokens = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local running = K_LEDGER_RUNNING .. ARGV[1]

local count, reserved = 0, 0
local turns = redis.call('HGETALL', running)
for i = 1, #turns, 2 do
  local till, aside, stream = string.match(turns[i + 1], '^(%d+) (%d+) (%d)$')
  if tonumber(till) <= now then
    redis.call('HDEL', running, turns[i])
  elseif turns[i] ~= ARGV[2] then
    count = count + tonumber(stream)
    reserved = reserved + tonumber(aside)
  end
end
if streams > 0 and count >= streams then return {'streams', count} end
if budget > 0 then
  local sums = redis.call('HGET', K_LEDGER_SUMS .. 'key:' .. math.floor(now / DAY_MS), ARGV[1])
  local requests, input, output = string.match(sums or '0 0 0', '^(%d+) (%d+) (%d+)')
  local used = tonumber(input) + tonumber(output)
  if used >= budget then return {'spent', DAY_MS - now % DAY_MS} end
  if used + reserved >= budget then return {'reserved', 0} end
  tokens = math.max(tokens, math.ceil(used / math.max(1, tonumber(requests))))
end
redis.call('HSET', running, ARGV[2], string.format('%.0f %.0f 1', now + ARGV[3], tokens))
redis.call('PEXPIRE', running, ARGV[3])
return {'taken', tokens}
