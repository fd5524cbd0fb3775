-- Lists every account anew that has leases, after the limit of all accounts has changed.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] limit: leases per account unless it has its own limit
-- returns looked: how many accounts
local limit = tonumber(ARGV[1])
local seen, count = {}, 0
for _, record in ipairs(redis.call('HVALS', K_LENT)) do
  local id = string.match(record, '^[^:]+:[^:]+:(.*)$')
  local a = not seen[id] and read(id)
  if a then place(a, limit) end
  seen[id] = true
end
for _ in pairs(seen) do count = count + 1 end
wake(clock_ms())
return count
