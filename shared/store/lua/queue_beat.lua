-- A process with waiters lives; says which of them could be served, in case a message was lost.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] process: the name before the dot of its waiters
-- ARGV[2] limit: leases per account unless it has its own limit
-- returns beat: {ms until an account for one of its first waiters is ready or -1, waiter, waiter, …}
local now = clock_ms()
redis.call('SET', K_PROCESS .. ARGV[1], 1, 'PX', WAITER_LIFE_MS)
reclaim(now, tonumber(ARGV[2]), 100)
local answer = {-1}
for _, c in ipairs(CAPABILITIES) do
  local head = live_head(c)
  if head and string.match(head, '^[^.]+') == ARGV[1] then
    for _, tier in ipairs(TIERS) do
      local first = redis.call('ZRANGE', K_EGRESSES .. c .. ':' .. tier, 0, 0, 'WITHSCORES')
      local ms = first[2] and tonumber(first[2]) - now
      if ms and ms <= 0 then
        answer[#answer + 1] = head
        break
      elseif ms and (answer[1] < 0 or ms < answer[1]) then
        answer[1] = ms
      end
    end
  end
end
return answer
