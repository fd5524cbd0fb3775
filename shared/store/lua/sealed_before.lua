-- Reads what of a record was sealed with another key than the current one, a stretch at a time.
-- KEYS[1] record: a hash
-- ARGV[1] cursor: '0' at first
-- ARGV[2] sealed: what every sealed value begins with
-- ARGV[3] current: what those begin with that are sealed with the current key
-- returns stretch: {next cursor ('0' = that was all), field, value, …}
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 200)
local old = {found[1]}
for i = 1, #found[2], 2 do
  local value = found[2][i + 1]
  local sealed = string.sub(value, 1, #ARGV[2]) == ARGV[2]
  if sealed and string.sub(value, 1, #ARGV[3]) ~= ARGV[3] then
    old[#old + 1] = found[2][i]
    old[#old + 1] = value
  end
end
return old
