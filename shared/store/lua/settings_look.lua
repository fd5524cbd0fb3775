-- Reads the stored settings if they have changed.
-- KEYS[1] tag: keys.SETTINGS
-- ARGV[1] version: the one the asker knows; '' = none
-- returns unchanged: {version}
-- returns changed: {version, name, value, name, value …}
local version = redis.call('GET', K_SETTINGS_VERSION) or '0'
if version == ARGV[1] then return {version} end
local answer = redis.call('HGETALL', K_SETTINGS)
table.insert(answer, 1, version)
return answer
