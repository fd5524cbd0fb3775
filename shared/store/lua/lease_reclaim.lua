-- Takes lapsed leases back and wakes those who wait for them.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] limit: leases per account unless it has its own limit
-- ARGV[2] most: how many at once
-- returns count: how many leases had lapsed
return reclaim(clock_ms(), tonumber(ARGV[1]), tonumber(ARGV[2]))
