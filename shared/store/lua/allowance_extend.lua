-- Keeps turns of an API key counted that are under way, also one that had lapsed.
-- KEYS[1] tag: keys.LEDGER
-- ARGV[1] key: id of the API key
-- ARGV[2] ttl: how much longer they count, ms
-- ARGV[3...] turns: token, `<tokens> <1 = it counts as a turn under way>`
-- returns extended: how many
local t = redis.call('TIME')
local till = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2])
local running = K_LEDGER_RUNNING .. ARGV[1]
for i = 3, #ARGV, 2 do redis.call('HSET', running, ARGV[i], till .. ' ' .. ARGV[i + 1]) end
redis.call('PEXPIRE', running, ARGV[2])
return (#ARGV - 2) / 2
