-- A waiter gives up; whoever comes after it is told if it could be served.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] capability: chat, image or video
-- ARGV[2] token: the waiter
-- returns left: 1; 0 when it wasn't queued
local left = redis.call('ZREM', K_QUEUE .. ARGV[1], ARGV[2])
wake(clock_ms())
return left
