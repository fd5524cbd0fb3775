-- Reads API keys by their ids, with the time.
-- KEYS[1] tag: the tag of the API keys
-- ARGV[1...] ids: any number of them
-- returns found: {epoch seconds, record or false, …}
local answer = {redis.call('TIME')[1]}
for i = 1, #ARGV do answer[i + 1] = redis.call('HGET', K_API_KEYS, ARGV[i]) end
return answer
