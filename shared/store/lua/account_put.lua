-- Adds an account, or takes new credentials for one that is there.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] mode: `add` only a new one, `replace` only one that is there, `import` both, but never one whose entry was imported before (it was deleted since)
-- ARGV[3] limit: leases per account unless it has its own limit
-- ARGV[4] entry: fingerprint of the `ACCOUNTS` entry, '' when it does not come from there
-- ARGV[5] password: sealed, '' = as it is
-- ARGV[6] proxy: sealed, '' = none
-- ARGV[7] egress: the name of the egress address
-- ARGV[8] token: sealed, '' = none
-- ARGV[9] expires: of the token, epoch seconds
-- returns done: `added` | `changed` | `exists` | `missing` | `deleted`
local id, mode, entry = ARGV[1], ARGV[2], ARGV[4]
local key = K_ACCOUNT .. id
local now = clock_ms()
local a = read(id)
if a and mode == 'add' then return 'exists' end
if not a and mode == 'replace' then return 'missing' end
if mode == 'import' then
  if redis.call('HGET', K_IMPORTED, id) == entry then return a and 'exists' or 'deleted' end
  redis.call('HSET', K_IMPORTED, id, entry)
end

local done = a and 'changed' or 'added'
if not a then
  local generation = redis.call('INCR', K_SERIAL)
  redis.call('HSET', key, 'state', 'new', 'state_reason', '', 'enabled', '1', 'concurrency', '',
    'cookies', '', 'password', '', 'proxy', '', 'egress', ARGV[7],
    'token', '', 'token_expires_at', '', 'token_version', '',
    'in_flight', 0, 'ready_at', 0, 'generation', generation, 'fence', generation,
    'added_at', math.floor(now / 1000), 'last_used', '', 'cooldowns', '', 'place', '',
    'error_at', '', 'error_code', '', 'error_message', '')
  redis.call('ZADD', K_ACCOUNTS, 0, id)
  a = read(id)
end
redis.call('HSET', key, 'proxy', ARGV[6], 'egress', ARGV[7])
a.egress = ARGV[7]
if ARGV[5] ~= '' or ARGV[8] ~= '' then
  if ARGV[5] ~= '' then redis.call('HSET', key, 'password', ARGV[5]) end
  local version = ARGV[8] ~= '' and tostring(redis.call('INCR', K_SERIAL)) or ''
  a.version = version
  a.state = version ~= '' and 'ready' or 'new'
  redis.call('HSET', key, 'token', ARGV[8], 'token_expires_at', ARGV[9], 'token_version', version,
    'state', a.state, 'state_reason', '')
  if version ~= '' then redis.call('HSET', key, 'fence', version) end
  redis.call('DEL', K_LOGIN_REFUSED .. id)
end
place(a, tonumber(ARGV[3]))
count_state(a)
wake(now)
return done
