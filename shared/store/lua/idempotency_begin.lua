-- Decides who runs the request behind an idempotency key.
-- KEYS[1] hash: body_hash, runner, answer
-- ARGV[1] body_hash: of the request
-- ARGV[2] runner: token of the asker
-- ARGV[3] ttl: after this a silent runner is dead, ms
-- returns run: {'run'}: the asker runs it
-- returns wait: {'wait', ms}: another one runs it
-- returns answered: {'answered', answer}
-- returns conflict: {'conflict'}: the key was used with another body
local f = redis.call('HMGET', KEYS[1], 'body_hash', 'answer')
if f[1] then
  if f[1] ~= ARGV[1] then return {'conflict'} end
  if f[2] then return {'answered', f[2]} end
  return {'wait', redis.call('PTTL', KEYS[1])}
end
redis.call('HSET', KEYS[1], 'body_hash', ARGV[1], 'runner', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'run'}
