-- Lends the account that has been ready longest, or says why not and queues the asker.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] capability: chat, image or video
-- ARGV[2] token: the lease's token `<process>.<n>`; while waiting, the waiter's name
-- ARGV[3] ttl: life of the lease, ms
-- ARGV[4] limit: leases per account unless it has its own limit
-- ARGV[5] interval: pause between two requests of one account, ms
-- ARGV[6] wait: how much longer the asker would wait, ms; 0 = it won't queue
-- ARGV[7] first: 1 when this is the turn's first attempt (the retry budget is measured by those)
-- ARGV[8...] tried: accounts to be taken only when nothing else is ready
-- returns lent: {'lent', account, generation, token, token_expires_at, token_version, proxy, cookies, egress, probing 0|1}
-- returns wait: {'wait', ms until an account is ready by time, or -1 to wait for a message}: the asker is queued
-- returns not: {'blocked' | 'exhausted' | 'cooling', ms until the first is ready}: not queued
-- returns none: {'none', 0}: no account is enabled, alive and in the pool
local capability, token = ARGV[1], ARGV[2]
local limit, wait_ms = tonumber(ARGV[4]), tonumber(ARGV[6])
local now = clock_ms()
local tried, tried_count = {}, #ARGV - 7
for i = 8, #ARGV do tried[ARGV[i]] = true end

reclaim(now, limit, 10)

local function choose()
  local fallback
  for _, tier in ipairs(TIERS) do
    local egresses = redis.call('ZRANGEBYSCORE', K_EGRESSES .. capability .. ':' .. tier,
      '-inf', now, 'LIMIT', 0, tried_count + 1)
    for _, egress in ipairs(egresses) do
      local ids = redis.call('ZRANGEBYSCORE', K_READY .. capability .. ':' .. tier .. ':' .. egress,
        '-inf', now, 'LIMIT', 0, tried_count + 1)
      for _, id in ipairs(ids) do
        if not tried[id] then return id end
        fallback = fallback or id
      end
    end
  end
  return fallback
end

local function lend(id)
  local a = read(id)
  local cooldown = a.cooldowns[capability]
  if cooldown then -- it has ended, or the account wouldn't be ready: this request is the probe
    cooldown.probe = token
    write_cooldowns(a)
  end
  a.in_flight = a.in_flight + 1
  a.ready_at = now + tonumber(ARGV[5])
  redis.call('HSET', K_ACCOUNT .. id, 'in_flight', a.in_flight, 'ready_at', a.ready_at,
    'last_used', now)
  redis.call('ZADD', K_LEASES, now + tonumber(ARGV[3]), token)
  redis.call('HSET', K_LENT, token, capability .. ':' .. a.generation .. ':' .. id)
  place(a, limit)
  if ARGV[7] == '1' then
    local window = K_ATTEMPTS .. math.floor(now / ATTEMPT_WINDOW_MS)
    if redis.call('INCR', window) == 1 then redis.call('PEXPIRE', window, 30000) end
  end
  local f = redis.call('HMGET', K_ACCOUNT .. id, 'token', 'token_expires_at', 'proxy', 'cookies')
  return {'lent', id, a.generation, f[1], f[2], a.version, f[3], f[4], a.egress, cooldown and 1 or 0}
end

-- Whether a release could help within the wait: of the busy accounts at least one would be ready.
-- Looks at 8 of them and says yes when there are more: waiting in vain for a while is the lesser evil.
local function release_would_help()
  local ids = redis.call('ZRANGEBYSCORE', K_BUSY .. capability, '-inf', now + wait_ms, 'LIMIT', 0, 8)
  for _, id in ipairs(ids) do
    local egress = redis.call('HGET', K_ACCOUNT .. id, 'egress')
    if egress and rest_until(egress) <= now + wait_ms then return true end
  end
  return #ids == 8
end

-- The moment at which the first account will be ready, why not before, and whether time alone brings
-- it about (otherwise a lease must come back first).
local function earliest()
  local at, egress, id
  local by_time = true
  for _, tier in ipairs(TIERS) do
    local head = redis.call('ZRANGE', K_EGRESSES .. capability .. ':' .. tier, 0, 0, 'WITHSCORES')
    if head[2] and (not at or tonumber(head[2]) < at) then
      at, egress = tonumber(head[2]), head[1]
      id = redis.call('ZRANGE', K_READY .. capability .. ':' .. tier .. ':' .. egress, 0, 0)[1]
    end
  end
  if not at then -- all that is left is lent: tell when the first of those would be ready
    local head = redis.call('ZRANGE', K_BUSY .. capability, 0, 0, 'WITHSCORES')
    if not head[1] then return nil, 'none' end
    by_time = false
    id = head[1]
    egress = redis.call('HGET', K_ACCOUNT .. id, 'egress')
    at = math.max(tonumber(head[2]), rest_until(egress))
  end
  local a = read(id)
  local cooldown = a and a.cooldowns[capability]
  if rest_until(egress) > math.max(now, cooldown and cooldown['until'] or 0) then
    return at, 'blocked', by_time
  end
  return at, cooldown and cooldown.reason == 'quota' and 'exhausted' or 'cooling', by_time
end

local head = live_head(capability)
if not head or head == token then
  local id = choose()
  if id then
    local lease = lend(id)
    if head then
      redis.call('ZREM', K_QUEUE .. capability, token)
      wake(now) -- several slots may be free: the next waiter need not wait for the next release
    end
    return lease
  end
end

local at, cause, by_time = earliest()
if cause == 'none' then
  redis.call('ZREM', K_QUEUE .. capability, token)
  return {'none', 0}
end
local ms = math.max(0, at - now)
local helps = release_would_help()
if not helps and ms > wait_ms then
  redis.call('ZREM', K_QUEUE .. capability, token)
  return {cause, ms}
end
if wait_ms > 0 and not redis.call('ZSCORE', K_QUEUE .. capability, token) then
  redis.call('ZADD', K_QUEUE .. capability, redis.call('INCR', K_SERIAL), token)
  redis.call('PEXPIRE', K_QUEUE .. capability, 3600000)
  redis.call('SET', K_PROCESS .. string.match(token, '^[^.]+'), 1, 'PX', WAITER_LIFE_MS)
end
-- Those behind the first are told by a message: a thousand of them must not look all the time.
local first = not head or head == token
return {'wait', first and by_time and ms <= wait_ms and ms or -1}
