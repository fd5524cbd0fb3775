-- Keeps the answer of a run, forgets the run, or lets it go on.
-- KEYS[1] hash: body_hash, runner, answer
-- ARGV[1] runner: token of the runner
-- ARGV[2] answer: '' = no answer
-- ARGV[3] ttl: life of the answer, or of the run that goes on, ms; 0 = forget the run
-- returns done: 1; 0 when the runner was taken for dead and another one runs (nothing was written)
local f = redis.call('HMGET', KEYS[1], 'runner', 'answer')
if f[1] ~= ARGV[1] or f[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
  return 1
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'answer', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
