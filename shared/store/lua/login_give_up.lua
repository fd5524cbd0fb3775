-- Ends a login that was given up before it was tried to its end: the next claimer logs in at once.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] account: its id
-- ARGV[2] fence: of the claim
-- returns given_up: 1; 0 when the claim had lapsed
if redis.call('GET', K_LOGIN .. ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', K_LOGIN .. ARGV[1])
redis.call('PUBLISH', C_LOGINS, ARGV[1])
return 1
