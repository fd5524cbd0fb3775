-- Gives out the next lines of all batches in turn, as many as may be under way at once.
-- include: pool.lua
-- include: login_slot.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] limit: lines under way at once, over all batches and processes
-- ARGV[2] want: how many the caller can begin
-- ARGV[3] ttl: after this a line that hasn't ended waits again, ms
-- ARGV[4] interval: pause between two logins through one egress, ms
-- ARGV[5] ahead: how far ahead a login may begin; one that must wait longer isn't given out, ms
-- returns claims: {ms until more may be given out (-1: nothing waits), {batch, kind, line, fence, ms until its login may begin, tries, egress, result, input}, …}
local limit, want, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local interval, ahead = tonumber(ARGV[4]), tonumber(ARGV[5])
local LOOKS = 100
local now = clock_ms()
local soonest

-- The lane is looked at again at that moment, or in a second: an operator may end a rest before.
local function later(lanes, egress, at)
  redis.call('ZADD', lanes, math.min(at, now + 1000), egress)
end

-- The account is there already, or somebody logs it in just now: then it isn't given out.
local function is_to_be_done(batch, egress, line, account)
  if redis.call('ZSCORE', K_ACCOUNTS, account) then
    local result = {email = account, status = 'skipped', message = 'The account exists already.'}
    end_line(batch, egress, line, 'skipped', cjson.encode(result), now)
    return false
  end
  local under_way = redis.call('PTTL', K_LOGIN .. account)
  if under_way > 0 then wait_line(batch, egress, line, now + math.min(under_way, 1000)) end
  return under_way <= 0
end

local function give_out(batch, kind, egress, line, account, result, begin_in)
  local fence = redis.call('INCR', K_SERIAL)
  if kind == 'import' then redis.call('SET', K_LOGIN .. account, fence, 'PX', ttl) end
  local member = batch .. ':' .. line
  redis.call('ZADD', K_BATCH_RUNNING, now + ttl, member)
  redis.call('HSET', K_BATCH_CLAIMS, member, fence .. ':' .. egress)
  if redis.call('HGET', K_BATCH .. batch, 'started_at') == '' then
    redis.call('HSET', K_BATCH .. batch, 'started_at', now)
  end
  redis.call('HSET', K_BATCH .. batch, 'state', 'running')
  return {batch, kind, tonumber(line), fence, begin_in,
    tonumber(redis.call('HGET', K_BATCH_TRIES .. batch, line) or 0), egress, result,
    redis.call('HGET', K_BATCH_INPUTS .. batch, line) or ''}
end

-- The next line of this batch whose egress may log in; nil when there is none now.
local function take(batch)
  local lanes = K_BATCH_LANES .. batch
  local kind = redis.call('HGET', K_BATCH .. batch, 'kind')
  for _ = 1, LOOKS do
    local lane = redis.call('ZRANGE', lanes, 0, 0, 'WITHSCORES')
    if not lane[1] or not kind then
      redis.call('ZREM', K_BATCH_ROTATION, batch)
      return nil
    end
    local egress, at = lane[1], tonumber(lane[2])
    if at > now then
      soonest = math.min(soonest or at, at)
      return nil
    end
    local waiting = K_BATCH_WAITING .. batch .. ':' .. egress
    local rest = redis.call('PTTL', K_REST .. egress)
    local slot = next_login_slot(egress, now)
    local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    if not head[1] then
      redis.call('ZREM', lanes, egress)
    elseif tonumber(head[2]) > now then
      later(lanes, egress, tonumber(head[2]))
    elseif rest > 0 then
      later(lanes, egress, now + rest)
    elseif slot - now > ahead then
      later(lanes, egress, slot - ahead)
    else
      local line = head[1]
      redis.call('ZREM', waiting, line)
      local result = redis.call('HGET', K_BATCH_LINES .. batch, line)
      local account = cjson.decode(result).email
      if kind ~= 'import' or is_to_be_done(batch, egress, line, account) then
        local space = math.max(interval, (pace_of(egress)))
        if kind == 'import' then occupy_login_slot(egress, slot, space, now) end
        later(lanes, egress, math.max(now, slot + space - ahead))
        return give_out(batch, kind, egress, line, account, result, slot - now)
      end
    end
  end
  soonest = now
  return nil
end

reclaim_lines(now)
local free = math.min(want, limit - redis.call('ZCARD', K_BATCH_RUNNING))
local claims = {-1}
while #claims <= free do
  local taken
  soonest = nil
  for _, batch in ipairs(redis.call('ZRANGE', K_BATCH_ROTATION, 0, -1)) do
    taken = take(batch)
    if taken then
      redis.call('ZADD', K_BATCH_ROTATION, redis.call('INCR', K_SERIAL), batch)
      break
    end
  end
  if not taken then break end
  claims[#claims + 1] = taken
end
if redis.call('ZCARD', K_BATCH_ROTATION) > 0 then
  claims[1] = math.max(0, math.ceil((soonest or now) - now))
end
return claims
