-- Ends a line that was given out; an account that was logged in for it is stored in the same step.
-- include: pool.lua
-- include: credentials.lua
-- include: batches.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] batch: its id
-- ARGV[2] line: its number
-- ARGV[3] fence: of the claim
-- ARGV[4] outcome: succeeded | failed
-- ARGV[5] result: JSON of e-mail, status and message
-- ARGV[6] account: its id
-- ARGV[7] limit: leases per account unless it has its own limit
-- ARGV[8] store: 1 when the account is to be stored, else 0
-- ARGV[9] password: sealed
-- ARGV[10] proxy: sealed, '' = none
-- ARGV[11] egress: the name of its egress address
-- ARGV[12] token: sealed
-- ARGV[13] expires: of the token, epoch seconds
-- returns outcome: as given; `skipped` when somebody added that account meanwhile; `stale` when the claim is another's by now
local batch, line, fence, outcome, result = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local egress = claim_of(batch, line, fence)
if not egress then return 'stale' end
local now = clock_ms()
drop_claim(batch, line)
end_login(ARGV[6], fence)
if outcome == 'succeeded' then ease(egress) end
if ARGV[8] == '1' then
  if redis.call('ZSCORE', K_ACCOUNTS, ARGV[6]) then
    outcome = 'skipped'
    result = cjson.encode({email = ARGV[6], status = outcome, message = 'The account exists already.'})
  else
    put_credentials(ARGV[6], nil, {
      password = ARGV[9], proxy = ARGV[10], egress = ARGV[11], token = ARGV[12], expires = ARGV[13],
    }, now, tonumber(ARGV[7]))
  end
end
end_line(batch, egress, line, outcome, result, now)
return outcome
