-- Says whether the fleet may make one more further attempt.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] free: so many a second are never withheld
-- ARGV[2] share: beyond those, at most this percentage of the first attempts in the last 10 s
-- returns allowed: 1 or 0
local WINDOW_MS = 10000
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window = math.floor(now / WINDOW_MS)
local past = 1 - (now % WINDOW_MS) / WINDOW_MS

local function last_window(prefix)
  local counts = redis.call('MGET', prefix .. window, prefix .. (window - 1))
  return (tonumber(counts[1]) or 0) + (tonumber(counts[2]) or 0) * past
end

local second = K_AGAIN_SECOND .. t[1]
local free = (tonumber(redis.call('GET', second)) or 0) < tonumber(ARGV[1])
if not free then
  local allowance = last_window(K_ATTEMPTS) * tonumber(ARGV[2]) / 100
  if last_window(K_AGAIN) + 1 > allowance then return 0 end
end
if redis.call('INCR', second) == 1 then redis.call('PEXPIRE', second, 5000) end
if redis.call('INCR', K_AGAIN .. window) == 1 then redis.call('PEXPIRE', K_AGAIN .. window, 30000) end
return 1
