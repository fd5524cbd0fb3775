-- Gives a slot back and writes down what the request told about its account and egress.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] token: the lease's token
-- ARGV[2] limit: leases per account unless it has its own limit
-- ARGV[3] interval: pause between two requests of one account, ms
-- ARGV[4] ok: 1 when the account has served: ends the cooldown that this lease probed
-- ARGV[5] facts: '' or JSON {cooldown: {ms|until_ms, cap_ms, reason, all}, dead: reason, token_rejected: version, rest: {ms, reason}, error: {code, message}}
-- returns released: 1
-- returns unknown: 0 when nobody holds that lease (lapsed, released, never given); nothing was changed
local token, limit = ARGV[1], tonumber(ARGV[2])
local record = redis.call('HGET', K_LENT, token)
if redis.call('ZREM', K_LEASES, token) == 0 or not record then return 0 end
redis.call('HDEL', K_LENT, token)
local now = clock_ms()
local a, capability = give_back(token, record, limit)
if not a then return 1 end

local ready_at = now + tonumber(ARGV[3])
if ready_at > a.ready_at then
  a.ready_at = ready_at
  redis.call('HSET', K_ACCOUNT .. a.id, 'ready_at', ready_at)
end
local recount = false
if ARGV[4] == '1' and a.probed then
  a.cooldowns[capability] = nil
  write_cooldowns(a)
  recount = true
end

if ARGV[5] ~= '' then
  local facts = cjson.decode(ARGV[5])
  local key = K_ACCOUNT .. a.id
  if facts.cooldown then
    for _, c in ipairs(facts.cooldown.all and CAPABILITIES or {capability}) do
      cool(a, c, facts.cooldown, now)
    end
    write_cooldowns(a)
  end
  if facts.dead then
    a.state = 'dead'
    redis.call('HSET', key, 'state', 'dead', 'state_reason', facts.dead)
  end
  if facts.token_rejected and facts.token_rejected == a.version then
    a.version = ''
    redis.call('HSET', key, 'token', '', 'token_expires_at', '', 'token_version', '')
  end
  if facts.error then
    redis.call('HSET', key, 'error_at', math.floor(now / 1000), 'error_code', facts.error.code,
      'error_message', facts.error.message)
  end
  if facts.rest then rest_egress(a.egress, facts.rest, now) end
  recount = true
end
place(a, limit)
if recount then count_state(a) end
wake(now)
return 1
