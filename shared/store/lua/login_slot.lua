-- Prelude of the scripts that hand out logins: the pace of logins through one egress.

-- The moment (ms) from which the next login may start through this egress.
local function next_login_slot(egress, now)
  return math.max(now, tonumber(redis.call('GET', K_LOGIN_SLOT .. egress) or 0))
end

-- A login starts at `slot`; the next one at least `interval` (ms) later.
local function occupy_login_slot(egress, slot, interval, now)
  if interval <= 0 then return end
  redis.call('SET', K_LOGIN_SLOT .. egress, string.format('%d', slot + interval),
    'PX', slot + interval - now)
end

-- The moment (ms) at which the next login may start through this egress, which nobody else gets;
-- nil and the moment when that is later than the patience (ms): then it stays free.
local function take_login_slot(egress, now, interval, patience)
  local slot = next_login_slot(egress, now)
  if slot - now > patience then return nil, slot end
  occupy_login_slot(egress, slot, interval, now)
  return slot
end
