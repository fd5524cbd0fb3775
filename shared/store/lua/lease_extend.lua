-- Lets leases live on; one that lapsed meanwhile takes its slot again, even over the limit.
-- include: pool.lua
-- KEYS[1] tag: keys.POOL
-- ARGV[1] ttl: life of the leases from now, ms
-- ARGV[2] limit: leases per account unless it has its own limit
-- ARGV[3...] leases: token, `<capability>:<generation>:<account>`, token, …
-- returns per lease: 1 extended, 2 taken again, 0 its account is gone
local expires, limit = clock_ms() + tonumber(ARGV[1]), tonumber(ARGV[2])
local answers = {}
for i = 3, #ARGV, 2 do
  local token, record = ARGV[i], ARGV[i + 1]
  local answer = 1
  if not redis.call('ZSCORE', K_LEASES, token) then
    local generation, id = string.match(record, '^[^:]+:([^:]+):(.*)$')
    local a = read(id)
    if a and a.generation == generation then
      a.in_flight = a.in_flight + 1
      redis.call('HSET', K_ACCOUNT .. id, 'in_flight', a.in_flight)
      redis.call('HSET', K_LENT, token, record)
      place(a, limit)
      answer = 2
    else
      answer = 0
    end
  end
  if answer > 0 then redis.call('ZADD', K_LEASES, expires, token) end
  answers[#answers + 1] = answer
end
return answers
