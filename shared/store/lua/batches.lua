-- The rules of batches, included after pool.lua by every script that puts down or ends a line.
--
-- A batch is a hash (K_BATCH .. id):
--   kind import|refresh
--   state reading, then queued|running, then completed|cancelled (a retry sets it running again)
--   total, valid, invalid, skipped, processed, succeeded, failed; last: its highest line
--   created_at, started_at, finished_at (ms, '' = not yet)
-- Always total = valid + invalid + skipped and processed = succeeded + failed; it is completed when
-- processed = valid.
--
-- Its waiting lines lie in lanes, one per egress address, since what a line waits for (its turn to log
-- in, the end of a rest) belongs to its egress: a lane that rests costs a claim one look.
-- A line is waiting, or claimed (K_BATCH_RUNNING, K_BATCH_CLAIMS), or has ended, never two of these.

local BATCH_LIFE_S = 30 * 86400
local INPUT_LIFE_S = 7 * 86400
local RECENT = 20
local PACE_FIRST_MS = 500
local PACE_MOST_MS = 30000
local PACE_LIFE_MS = 600000

-- The batch and its lines are kept for so long from now on.
local function keep(batch, seconds)
  for _, prefix in ipairs({K_BATCH, K_BATCH_LINES, K_BATCH_INPUTS, K_BATCH_LANES}) do
    redis.call('EXPIRE', prefix .. batch, seconds)
  end
end

-- The line waits: behind its number's predecessors, or until a moment (ms, larger than any number).
local function wait_line(batch, egress, line, at)
  local waiting = K_BATCH_WAITING .. batch .. ':' .. egress
  redis.call('ZADD', waiting, at, line)
  redis.call('EXPIRE', waiting, BATCH_LIFE_S)
  redis.call('ZADD', K_BATCH_LANES .. batch, 'LT', at, egress)
  redis.call('EXPIRE', K_BATCH_LANES .. batch, BATCH_LIFE_S)
end

local function rotate(batch)
  redis.call('ZADD', K_BATCH_ROTATION, 'NX', 0, batch)
end

-- A line that was given out waits again; in a cancelled batch, until somebody retries that.
local function wait_again(batch, egress, line, at)
  local state = redis.call('HGET', K_BATCH .. batch, 'state')
  if not state then return end
  wait_line(batch, egress, line, at)
  if state == 'running' then rotate(batch) end
end

-- The egress of a claimed line; nil when the claim is another's by now.
local function claim_of(batch, line, fence)
  local held = redis.call('HGET', K_BATCH_CLAIMS, batch .. ':' .. line)
  local number, egress = string.match(held or '', '^(%d+):(.*)$')
  return number == fence and egress or nil
end

local function drop_claim(batch, line)
  redis.call('ZREM', K_BATCH_RUNNING, batch .. ':' .. line)
  redis.call('HDEL', K_BATCH_CLAIMS, batch .. ':' .. line)
end

-- The login of this account that the claim held is over.
local function end_login(account, fence)
  if redis.call('GET', K_LOGIN .. account) == fence then redis.call('DEL', K_LOGIN .. account) end
end

-- Up to 100 lines whose process died wait again, in front.
local function reclaim_lines(now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', K_BATCH_RUNNING, '-inf', now, 'LIMIT', 0, 100)) do
    local batch, line = string.match(member, '^([^:]+):(%d+)$')
    local held = redis.call('HGET', K_BATCH_CLAIMS, member)
    drop_claim(batch, line)
    wait_again(batch, string.match(held, '^%d+:(.*)$'), line, line)
  end
end

-- The batch is completed if no line of it is left.
local function settle(batch, now)
  local f = redis.call('HMGET', K_BATCH .. batch, 'state', 'processed', 'valid')
  if (f[1] == 'running' or f[1] == 'queued') and tonumber(f[2]) >= tonumber(f[3]) then
    redis.call('HSET', K_BATCH .. batch, 'state', 'completed', 'finished_at', now)
    redis.call('ZREM', K_BATCH_ROTATION, batch)
    redis.call('EXPIRE', K_BATCH_INPUTS .. batch, INPUT_LIFE_S)
  end
end

-- The line has ended as `result` (JSON) says. outcome: succeeded|failed|skipped
local function end_line(batch, egress, line, outcome, result, now)
  redis.call('HSET', K_BATCH_LINES .. batch, line, result)
  redis.call('LPUSH', K_BATCH_RECENT .. batch, line)
  redis.call('LTRIM', K_BATCH_RECENT .. batch, 0, RECENT - 1)
  redis.call('EXPIRE', K_BATCH_RECENT .. batch, BATCH_LIFE_S)
  redis.call('HINCRBY', K_BATCH .. batch, outcome, 1)
  redis.call('HINCRBY', K_BATCH_OUTCOMES, outcome, 1)
  if outcome == 'skipped' then
    redis.call('HINCRBY', K_BATCH .. batch, 'valid', -1)
  else
    redis.call('HINCRBY', K_BATCH .. batch, 'processed', 1)
  end
  if outcome == 'failed' then
    redis.call('ZADD', K_BATCH_FAILED .. batch, line, line .. ':' .. egress)
    redis.call('EXPIRE', K_BATCH_FAILED .. batch, BATCH_LIFE_S)
  else
    redis.call('HDEL', K_BATCH_INPUTS .. batch, line)
  end
  settle(batch, now)
end

local function pace_of(egress)
  local pace, till = string.match(redis.call('GET', K_LOGIN_PACE .. egress) or '0:0', '^(%d+):(%d+)$')
  return tonumber(pace), tonumber(till)
end

local function keep_pace(egress, pace, till)
  redis.call('SET', K_LOGIN_PACE .. egress, string.format('%d:%d', pace, till), 'PX', PACE_LIFE_MS)
end

-- The upstream found logins of this egress too fast: none for `pause_ms`, then farther apart than
-- before. What is refused while it pauses is the same incident.
local function slow_down(egress, pause_ms, now)
  local pace, till = pace_of(egress)
  if now < till then return end
  pace = math.min(PACE_MOST_MS, math.max(PACE_FIRST_MS, 2 * pace))
  till = now + math.max(pause_ms, pace)
  keep_pace(egress, pace, till)
  local slot = tonumber(redis.call('GET', K_LOGIN_SLOT .. egress) or 0)
  if slot < till then
    redis.call('SET', K_LOGIN_SLOT .. egress, string.format('%d', till), 'PX', till - now)
  end
end

-- A login went well: the next ones may come a little closer.
local function ease(egress)
  local pace, till = pace_of(egress)
  if pace == 0 then return end
  pace = math.floor(pace * 0.9)
  if pace < 50 then redis.call('DEL', K_LOGIN_PACE .. egress) else keep_pace(egress, pace, till) end
end
