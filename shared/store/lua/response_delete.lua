-- Deletes a response.
-- include: responses.lua
-- KEYS[1] tag: keys.RESPONSES
-- ARGV[1] id: of the response
-- returns deleted: 1; 0 when there is none
local owner = redis.call('HGET', K_RESPONSE .. ARGV[1], 'owner')
if not owner then return 0 end
forget_response(owner, ARGV[1])
return 1
