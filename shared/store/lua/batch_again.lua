-- A line that was given out waits again; its egress slows down or rests where the upstream said so.
-- include: pool.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] line: its number
-- ARGV[3] fence: of the claim
-- ARGV[4] account: its id
-- ARGV[5] delay: before it is given out again, ms; 0 = in front of all
-- ARGV[6] counted: 1 when its login was tried and failed for a reason of its own, else 0
-- ARGV[7] pause: no login through its egress for so long, then slower, ms; 0 = it isn't to blame
-- ARGV[8] rest: '' or JSON {ms, reason}: the firewall refused its egress
-- returns waiting: 1; 0 when the claim is another's by now
local batch, line, fence = ARGV[1], ARGV[2], ARGV[3]
local egress = claim_of(batch, line, fence)
if not egress then return 0 end
local now = clock_ms()
drop_claim(batch, line)
end_login(ARGV[4], fence)
if ARGV[7] ~= '0' then slow_down(egress, tonumber(ARGV[7]), now) end
if ARGV[8] ~= '' then rest_egress(egress, cjson.decode(ARGV[8]), now) end
if ARGV[6] == '1' then
  redis.call('HINCRBY', K_BATCH_TRIES .. batch, line, 1)
  redis.call('EXPIRE', K_BATCH_TRIES .. batch, BATCH_LIFE_S)
end
local delay = tonumber(ARGV[5])
wait_again(batch, egress, line, delay > 0 and now + delay or line)
return 1
