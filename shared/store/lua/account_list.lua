-- One stretch of the accounts in alphabetical order, filtered; bounded work per call.
-- KEYS[1] tag: keys.POOL
-- ARGV[1] after: the account after which to begin, '' = at the first
-- ARGV[2] state: new, ready, cooling, disabled, dead, or '' for all
-- ARGV[3] search: a part of the account's id, '' for all
-- ARGV[4] limit: how many at most
-- ARGV[5] scan: how many accounts to look at, at most
-- returns page: {last account looked at or '' at the end, account, account, …}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local wanted, limit = ARGV[2], tonumber(ARGV[4])
local ids = redis.call('ZRANGEBYLEX', K_ACCOUNTS, ARGV[1] == '' and '-' or '(' .. ARGV[1], '+',
  'LIMIT', 0, ARGV[5])

local function shown_state(id)
  for _, state in ipairs({'ready', 'new', 'disabled', 'dead'}) do
    local cooling_until = redis.call('ZSCORE', K_STATE .. state, id)
    if cooling_until then
      local cools = (state == 'ready' or state == 'new') and tonumber(cooling_until) > now
      return cools and 'cooling' or state
    end
  end
  return ''
end

local page, last = {''}, ''
for _, id in ipairs(ids) do
  last = id
  if ARGV[3] == '' or string.find(id, ARGV[3], 1, true) then
    if wanted == '' or wanted == shown_state(id) then
      page[#page + 1] = id
      if #page > limit then break end
    end
  end
end
if #ids == tonumber(ARGV[5]) or last ~= ids[#ids] then page[1] = last end
return page
