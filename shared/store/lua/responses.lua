-- Prelude of the response scripts: an owner's responses and their sizes.
local function forget_response(owner, id)
  local sizes = K_RESPONSES_SIZES .. owner
  redis.call('DEL', K_RESPONSE .. id)
  redis.call('ZREM', K_RESPONSES_OWNED .. owner, id)
  redis.call('HINCRBY', sizes, 'total', -(tonumber(redis.call('HGET', sizes, id)) or 0))
  redis.call('HDEL', sizes, id)
end
local function add_to_responses(owner, id, bytes, ttl_ms, most)
  local owned, sizes = K_RESPONSES_OWNED .. owner, K_RESPONSES_SIZES .. owner
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  redis.call('ZADD', owned, 'NX', now, id)
  redis.call('HINCRBY', sizes, id, bytes)
  local total = redis.call('HINCRBY', sizes, 'total', bytes)
  for _, lapsed in ipairs(redis.call('ZRANGEBYSCORE', owned, '-inf', now - ttl_ms)) do
    forget_response(owner, lapsed)
  end
  while tonumber(redis.call('HGET', sizes, 'total')) > most do
    local oldest = redis.call('ZRANGE', owned, 0, 0)[1]
    if not oldest or oldest == id then break end
    forget_response(owner, oldest)
  end
  redis.call('PEXPIRE', owned, ttl_ms)
  redis.call('PEXPIRE', sizes, ttl_ms)
end
