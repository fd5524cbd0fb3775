-- Tells why an account is or isn't lent now: what acquiring would see of it. Changes nothing.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] limit: leases per account unless it has its own limit
-- returns facts: JSON {now, state, state_reason, enabled, signed_in, in_flight, limit, ready_at, egress, rest: {until, reason} or absent, login_until, listed: [{capability, until, reason, probing, ahead, signed_in_ready}]}; times in ms
-- returns none: false when there is no such account
local id, now = ARGV[1], clock_ms()
local a = read(id)
if not a then return false end
local signed_in = a.version ~= ''
local facts = {
  now = now, state = a.state, enabled = a.enabled, signed_in = signed_in,
  state_reason = redis.call('HGET', K_ACCOUNT .. id, 'state_reason'),
  in_flight = a.in_flight, limit = a.concurrency or tonumber(ARGV[2]), ready_at = a.ready_at,
  egress = a.egress, login_until = now + math.max(0, redis.call('PTTL', K_LOGIN .. id)), listed = {},
}
local rest = redis.call('GET', K_REST .. a.egress)
if rest then
  local till, reason = string.match(rest, '^(%d+):(.*)$')
  facts.rest = {['until'] = tonumber(till), reason = reason}
end

-- How many have been ready longer, at least: egresses with a better account than the best of its
-- own, and accounts of its own egress.
local function ahead(capability)
  if a.place == '' then return 0 end
  local score = redis.call('ZSCORE', K_READY .. capability .. ':' .. a.place, id)
  local egresses = K_EGRESSES .. capability .. ':' .. string.sub(a.place, 1, 1)
  local best = redis.call('ZSCORE', egresses, a.egress)
  if not score or not best then return 0 end
  return redis.call('ZCOUNT', egresses, '-inf', '(' .. best)
    + redis.call('ZCOUNT', K_READY .. capability .. ':' .. a.place, '-inf', '(' .. score)
end

for i, c in ipairs(CAPABILITIES) do
  local cooldown = a.cooldowns[c]
  facts.listed[i] = {
    capability = c, ahead = ahead(c),
    ['until'] = cooldown and cooldown['until'] or 0, reason = cooldown and cooldown.reason or '',
    probing = cooldown ~= nil and cooldown.probe ~= nil,
    signed_in_ready = not signed_in
      and redis.call('ZCOUNT', K_EGRESSES .. c .. ':1', '-inf', now) > 0,
  }
end
return cjson.encode(facts)
