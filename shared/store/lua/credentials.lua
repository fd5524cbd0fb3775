-- What an account logs in with, included after pool.lua by every script that adds accounts.

-- The account has these credentials; one that isn't there yet (`a` is nil) is added. With a token it
-- is ready, with a password alone it is new. given: {password, proxy, egress, token, expires, age},
-- secrets sealed, '' = as it is (password), none (proxy, token); expires: epoch seconds; age: `new` when
-- the upstream has just given the token
local function put_credentials(id, a, given, now, default_limit)
  local key = K_ACCOUNT .. id
  if not a then
    local generation = redis.call('INCR', K_SERIAL)
    redis.call('HSET', key, 'state', 'new', 'state_reason', '', 'enabled', '1', 'concurrency', '',
      'cookies', '', 'password', '', 'proxy', '', 'egress', given.egress,
      'token', '', 'token_expires_at', '', 'token_version', '', 'token_at', '',
      'in_flight', 0, 'ready_at', 0, 'generation', generation, 'fence', generation,
      'added_at', math.floor(now / 1000), 'last_used', '', 'cooldowns', '', 'place', '',
      'error_at', '', 'error_code', '', 'error_message', '')
    redis.call('ZADD', K_ACCOUNTS, 0, id)
    a = read(id)
  end
  redis.call('HSET', key, 'proxy', given.proxy, 'egress', given.egress)
  a.egress = given.egress
  if given.password ~= '' or given.token ~= '' then
    if given.password ~= '' then redis.call('HSET', key, 'password', given.password) end
    local version = given.token ~= '' and tostring(redis.call('INCR', K_SERIAL)) or ''
    a.version = version
    a.state = version ~= '' and 'ready' or 'new'
    redis.call('HSET', key, 'token', given.token, 'token_expires_at', given.expires,
      'token_version', version, 'token_at', given.age == 'new' and math.floor(now / 1000) or '',
      'state', a.state, 'state_reason', '')
    if version ~= '' then redis.call('HSET', key, 'fence', version) end
    redis.call('DEL', K_LOGIN_REFUSED .. id)
  end
  place(a, default_limit)
  count_state(a)
  wake(now)
end
