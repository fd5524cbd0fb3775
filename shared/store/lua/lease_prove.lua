-- Ends the cooldown that this lease probes: its account has begun to answer.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] token: the lease's token
-- ARGV[2] limit: leases per account unless it has its own limit
-- returns proved: 1; 0 when this lease probes nothing
local record = redis.call('HGET', K_LENT, ARGV[1])
if not record then return 0 end
local capability, id = string.match(record, '^([^:]+):[^:]+:(.*)$')
local a = read(id)
local cooldown = a and a.cooldowns[capability]
if not cooldown or cooldown.probe ~= ARGV[1] then return 0 end
a.cooldowns[capability] = nil
write_cooldowns(a)
place(a, tonumber(ARGV[2]))
count_state(a)
wake(clock_ms())
return 1
