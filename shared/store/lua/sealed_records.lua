-- Finds records of one family, a stretch at a time; a record may come twice.
-- KEYS[1] tag: of the family: it decides the node in a cluster
-- ARGV[1] cursor: '0' at first
-- ARGV[2] pattern: of their names
-- ARGV[3] count: about how many keys to look at
-- returns stretch: {next cursor ('0' = that was all), name, …}
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
table.insert(found[2], 1, found[1])
return found[2]
