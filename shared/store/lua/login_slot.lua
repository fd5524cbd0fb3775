-- Prelude of the scripts that hand out logins: the pace of logins through one egress.

-- The moment (ms) at which the next login may start through this egress, which nobody else gets;
-- nil and the moment when that is later than the patience (ms): then it stays free.
local function take_login_slot(egress, now, interval, patience)
  local slot = math.max(now, tonumber(redis.call('GET', K_LOGIN_SLOT .. egress) or 0))
  if slot - now > patience then return nil, slot end
  if interval > 0 then
    redis.call('SET', K_LOGIN_SLOT .. egress, string.format('%d', slot + interval),
      'PX', slot + interval - now)
  end
  return slot
end
