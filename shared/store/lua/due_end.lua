-- A step is over: done, or given up with a reason.
-- KEYS[1] tag: keys.DUE
-- ARGV[1] step: its id
-- ARGV[2] reason: '' when it is done
-- returns ended: 1; 0 when it had ended before
redis.call('ZREM', K_DUE, ARGV[1])
redis.call('ZREM', K_DUE_RUNNING, ARGV[1])
local what = redis.call('HGET', K_DUE_STEPS, ARGV[1])
local tries = redis.call('HGET', K_DUE_TRIES, ARGV[1])
redis.call('HDEL', K_DUE_TRIES, ARGV[1])
if redis.call('HDEL', K_DUE_STEPS, ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then
  local failed = cjson.decode(what)
  failed.step, failed.reason, failed.tries = ARGV[1], ARGV[2], tonumber(tries)
  failed.at = tonumber(redis.call('TIME')[1])
  redis.call('LPUSH', K_DUE_FAILED, cjson.encode(failed))
  redis.call('LTRIM', K_DUE_FAILED, 0, 99)
  redis.call('EXPIRE', K_DUE_FAILED, 604800)
end
return 1
