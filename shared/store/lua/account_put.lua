-- Adds an account, or takes new credentials for one that is there.
-- include: pool.lua
-- include: credentials.lua
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
-- ARGV[10] age: of the token: `new`, just given by the upstream; `unknown`
-- returns done: `added` | `changed` | `exists` | `missing` | `deleted`
local id, mode, entry = ARGV[1], ARGV[2], ARGV[4]
local now = clock_ms()
local a = read(id)
if a and mode == 'add' then return 'exists' end
if not a and mode == 'replace' then return 'missing' end
if mode == 'import' then
  if redis.call('HGET', K_IMPORTED, id) == entry then return a and 'exists' or 'deleted' end
  redis.call('HSET', K_IMPORTED, id, entry)
end

put_credentials(id, a, {
  password = ARGV[5], proxy = ARGV[6], egress = ARGV[7], token = ARGV[8], expires = ARGV[9],
  age = ARGV[10],
}, now, tonumber(ARGV[3]))
return a and 'changed' or 'added'
