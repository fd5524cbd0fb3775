-- Puts the same secret, sealed anew, in the place of what was read; a change meanwhile wins.
-- KEYS[1] record: a hash
-- ARGV[1...] triples: field, what was read, what it becomes
-- returns swapped: how many
local swapped = 0
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    swapped = swapped + 1
  end
end
return swapped
