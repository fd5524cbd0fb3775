-- Keeps a response for its owner, whose oldest ones give way when it is too much.
-- include: responses.lua
-- KEYS[1] tag: keys.RESPONSES
-- ARGV[1] id: of the response
-- ARGV[2] owner: of the API key
-- ARGV[3] status: queued, in_progress, or how it ended
-- ARGV[4] request: sealed
-- ARGV[5] result: sealed; '' while there is none
-- ARGV[6] work: sealed, what a job process runs; '' when nobody has to
-- ARGV[7] ttl: ms
-- ARGV[8] most: bytes that one owner may keep
-- returns kept: 1; 0 when there is one with this id
local record = K_RESPONSE .. ARGV[1]
if redis.call('EXISTS', record) == 1 then return 0 end
redis.call('HSET', record, 'owner', ARGV[2], 'status', ARGV[3], 'request', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', record, 'result', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', record, 'work', ARGV[6]) end
redis.call('PEXPIRE', record, ARGV[7])
local bytes = #ARGV[4] + #ARGV[5] + #ARGV[6]
add_to_responses(ARGV[2], ARGV[1], bytes, tonumber(ARGV[7]), tonumber(ARGV[8]))
return 1
