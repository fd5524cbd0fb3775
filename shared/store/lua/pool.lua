-- The pool's rules, included by every script that lends, takes back or changes an account.
--
-- An account is a hash (K_ACCOUNT .. id):
--   state new|ready|dead, state_reason, enabled 1|0, egress, concurrency ('' = default)
--   password, token, proxy, cookies (sealed), token_expires_at (s), token_version ('' = no token),
--   token_at (s; when it was given, '' = unknown)
--   in_flight, ready_at (ms), generation, fence, added_at (s), last_used (ms)
--   error_at (s), error_code, error_message
--   cooldowns  '' or {"chat": {"until": ms, "reason": "quota", "failures": 1, "probe": lease token}}
--   place      '' or '<tier>:<egress>': the group it is listed in now
--
-- A usable account is listed, per capability, in exactly one of
--   K_READY .. capability:tier:egress   it has a free slot; score = when it is ready
--   K_BUSY .. capability                all its slots are lent, or its one probe is
-- and a group with ready accounts is listed in
--   K_EGRESSES .. capability:tier       score = the later of its best account and its rest
-- so that acquiring looks at two heads however many accounts are busy, cooling, dead or resting.
-- Tier 1 has an access token, tier 2 must log in first and is lent when tier 1 has nothing.

local CAPABILITIES = {'chat', 'image', 'video'}
local TIERS = {'1', '2'}
local ATTEMPT_WINDOW_MS = 10000
local WAITER_LIFE_MS = 3000

local function clock_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read(id)
  local f = redis.call('HMGET', K_ACCOUNT .. id, 'state', 'enabled', 'egress', 'token_version',
    'in_flight', 'concurrency', 'ready_at', 'place', 'cooldowns', 'generation')
  if not f[1] then return nil end
  return {
    id = id, state = f[1], enabled = f[2] == '1', egress = f[3], version = f[4],
    in_flight = tonumber(f[5]), concurrency = tonumber(f[6]), ready_at = tonumber(f[7]),
    place = f[8], cooldowns = f[9] ~= '' and cjson.decode(f[9]) or {}, generation = f[10],
  }
end

local function rest_until(egress)
  local rest = redis.call('GET', K_REST .. egress)
  return rest and tonumber(string.match(rest, '^%d+')) or 0
end

local function list_group(capability, place, rest)
  local head = redis.call('ZRANGE', K_READY .. capability .. ':' .. place, 0, 0, 'WITHSCORES')
  local egresses = K_EGRESSES .. capability .. ':' .. string.sub(place, 1, 1)
  local egress = string.sub(place, 3)
  if head[2] then
    redis.call('ZADD', egresses, math.max(tonumber(head[2]), rest), egress)
  else
    redis.call('ZREM', egresses, egress)
  end
end

-- Lists the account where its fields say it belongs.
local function place(a, default_limit)
  local target = ''
  if a.enabled and a.state ~= 'dead' then
    target = (a.version ~= '' and '1:' or '2:') .. a.egress
  end
  if a.place ~= target then
    for _, c in ipairs(CAPABILITIES) do
      if a.place ~= '' then
        redis.call('ZREM', K_READY .. c .. ':' .. a.place, a.id)
        list_group(c, a.place, rest_until(string.sub(a.place, 3)))
      end
      redis.call('ZREM', K_BUSY .. c, a.id)
    end
    a.place = target
    redis.call('HSET', K_ACCOUNT .. a.id, 'place', target)
  end
  if target == '' then return end
  local full = a.in_flight >= (a.concurrency or default_limit)
  local rest = rest_until(a.egress)
  for _, c in ipairs(CAPABILITIES) do
    local cooldown = a.cooldowns[c]
    local at = math.max(a.ready_at, cooldown and cooldown['until'] or 0)
    local ready = K_READY .. c .. ':' .. target
    if full or (cooldown and cooldown.probe) then
      redis.call('ZREM', ready, a.id)
      redis.call('ZADD', K_BUSY .. c, at, a.id)
    else
      redis.call('ZADD', ready, at, a.id)
      redis.call('ZREM', K_BUSY .. c, a.id)
    end
    list_group(c, target, rest)
  end
end

-- Counts the account under its state; the score tells until when it counts as cooling instead.
local function count_state(a)
  local shown = a.enabled and a.state or 'disabled'
  local longest = 0
  for _, cooldown in pairs(a.cooldowns) do longest = math.max(longest, cooldown['until']) end
  for _, state in ipairs({'new', 'ready', 'disabled', 'dead'}) do
    if state == shown then
      redis.call('ZADD', K_STATE .. state, longest, a.id)
    else
      redis.call('ZREM', K_STATE .. state, a.id)
    end
  end
end

local function write_cooldowns(a)
  local text = next(a.cooldowns) and cjson.encode(a.cooldowns) or ''
  redis.call('HSET', K_ACCOUNT .. a.id, 'cooldowns', text)
end

-- The account rests for this capability. A failure after an ended cooldown (the probe) doubles
-- the length up to its cap; one during a cooldown is the same incident and doubles nothing.
-- given: {ms | until_ms, cap_ms, reason}
local function cool(a, capability, given, now)
  local old = a.cooldowns[capability]
  local failures = old and old.failures or 0
  if not old or old['until'] <= now then failures = failures + 1 end
  local till = given.until_ms
  if not till then
    local ms = math.min(given.ms * 2 ^ math.min(failures - 1, 30), math.max(given.ms, given.cap_ms))
    till = now + math.floor(ms)
  end
  if old and old['until'] > till then
    old.failures = failures
    return
  end
  a.cooldowns[capability] = {
    ['until'] = till, reason = given.reason, failures = failures, probe = old and old.probe,
  }
end

-- The longest waiting waiter whose process lives, or nil. Dead ones in front of it are dropped.
local function live_head(capability)
  for _ = 1, 200 do
    local head = redis.call('ZRANGE', K_QUEUE .. capability, 0, 0)[1]
    if not head then return nil end
    if redis.call('EXISTS', K_PROCESS .. string.match(head, '^[^.]+')) == 1 then return head end
    redis.call('ZREM', K_QUEUE .. capability, head)
  end
  return nil
end

local function anything_ready(capability, now)
  for _, tier in ipairs(TIERS) do
    local head = redis.call('ZRANGE', K_EGRESSES .. capability .. ':' .. tier, 0, 0, 'WITHSCORES')
    if head[2] and tonumber(head[2]) <= now then return true end
  end
  return false
end

-- Tells the first waiter of each capability that it can be served.
local function wake(now)
  for _, c in ipairs(CAPABILITIES) do
    local head = live_head(c)
    if head and anything_ready(c, now) then
      redis.call('PUBLISH', C_WAKE .. string.match(head, '^[^.]+'), head)
    end
  end
end

-- Takes the slot of a lease that is no longer listed back from its account; nil when the account
-- was deleted meanwhile (or deleted and added again). The caller places the account.
local function give_back(token, record, limit)
  local capability, generation, id = string.match(record, '^([^:]+):([^:]+):(.*)$')
  local a = read(id)
  if not a or a.generation ~= generation then return nil end
  a.in_flight = math.max(0, a.in_flight - 1)
  redis.call('HSET', K_ACCOUNT .. id, 'in_flight', a.in_flight)
  local cooldown = a.cooldowns[capability]
  a.probed = cooldown and cooldown.probe == token
  if a.probed then
    cooldown.probe = nil
    write_cooldowns(a)
  end
  return a, capability
end

-- Takes back up to `most` lapsed leases; returns how many.
local function reclaim(now, limit, most)
  local lapsed = redis.call('ZRANGEBYSCORE', K_LEASES, '-inf', now, 'LIMIT', 0, most)
  for _, token in ipairs(lapsed) do
    local record = redis.call('HGET', K_LENT, token)
    redis.call('ZREM', K_LEASES, token)
    redis.call('HDEL', K_LENT, token)
    local a = record and give_back(token, record, limit)
    if a then place(a, limit) end
  end
  if #lapsed > 0 then wake(now) end
  return #lapsed
end

-- Lists an egress again after its rest began or ended.
local function list_egress(egress)
  local rest = rest_until(egress)
  for _, c in ipairs(CAPABILITIES) do
    for _, tier in ipairs(TIERS) do list_group(c, tier .. ':' .. egress, rest) end
  end
end

-- The firewall refused this egress: nothing begins through it for so long. given: {ms, reason}
local function rest_egress(egress, given, now)
  local till = now + given.ms
  if till <= rest_until(egress) then return end
  redis.call('SET', K_REST .. egress, string.format('%d:%s', till, given.reason), 'PX', given.ms)
  list_egress(egress)
end
