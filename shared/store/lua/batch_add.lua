-- Adds lines to a batch that is being put down.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] line: its number, rising; four arguments per line
-- ARGV[3] egress: where it will wait; `*` = that of the account `input` names; '' = it doesn't wait
-- ARGV[4] result: JSON of e-mail, status and message
-- ARGV[5...] input: its account, sealed; what counts it (`invalid` or `skipped`) when it doesn't wait
-- returns added: 1; 0 when the batch is gone
local batch = ARGV[1]
local key = K_BATCH .. batch
if redis.call('HGET', key, 'state') ~= 'reading' then return 0 end
for i = 2, #ARGV, 4 do
  local line, egress, result, input = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  redis.call('HSET', K_BATCH_LINES .. batch, line, result)
  if egress == '' then
    redis.call('HINCRBY', key, input, 1)
    redis.call('HINCRBY', K_BATCH_OUTCOMES, input, 1)
  else
    if egress == '*' then
      egress = redis.call('HGET', K_ACCOUNT .. input, 'egress') or 'direct'
    else
      redis.call('HSET', K_BATCH_INPUTS .. batch, line, input)
    end
    redis.call('HINCRBY', key, 'valid', 1)
    wait_line(batch, egress, line, line)
  end
  redis.call('HINCRBY', key, 'total', 1)
end
redis.call('HSET', key, 'last', ARGV[#ARGV - 3])
keep(batch, 3600)
return 1
