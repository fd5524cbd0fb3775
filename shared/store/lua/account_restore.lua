-- Adds an account as a backup has it, unless there is one.
-- include: pool.lua
-- include: credentials.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] limit: leases per account unless it has its own limit
-- ARGV[3] password: sealed
-- ARGV[4] proxy: sealed, '' = none
-- ARGV[5] egress: the name of the egress address
-- ARGV[6] token: sealed, '' = none
-- ARGV[7] expires: of the token, epoch seconds; one that has lapsed is left behind
-- ARGV[8] token_at: when it was given, '' = unknown
-- ARGV[9] cookies: sealed, '' = none
-- ARGV[10] enabled: 1 | 0
-- ARGV[11] concurrency: '' = default
-- returns added: 1; 0 when there is one
local id, limit = ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', K_ACCOUNT .. id) == 1 then return 0 end
local now = clock_ms()
local live = ARGV[6] ~= '' and tonumber(ARGV[7]) * 1000 > now
put_credentials(id, nil, {
  password = ARGV[3], proxy = ARGV[4], egress = ARGV[5],
  token = live and ARGV[6] or '', expires = live and ARGV[7] or '',
}, now, limit)
redis.call('HSET', K_ACCOUNT .. id, 'token_at', ARGV[8], 'cookies', ARGV[9], 'enabled', ARGV[10],
  'concurrency', ARGV[11])
local a = read(id)
place(a, limit)
count_state(a)
return 1
