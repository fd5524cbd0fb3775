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
local wanted, search, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local ids = redis.call('ZRANGEBYLEX', K_ACCOUNTS, ARGV[1] == '' and '-' or '(' .. ARGV[1], '+',
  'LIMIT', 0, ARGV[5])
if #ids == 0 then return {''} end

local found = ids
if search ~= '' then
  found = {}
  for _, id in ipairs(ids) do
    if string.find(id, search, 1, true) then found[#found + 1] = id end
  end
end

local function always() return true end
local function cools(till) return till > now end
local function rests_not(till) return till <= now end

-- Whether each of `found` is in the wanted state: one question per set, not per account.
local matches = {}
local function look_in(state, accepts)
  if accepts == cools and redis.call('ZCOUNT', K_STATE .. state, '(' .. now, '+inf') == 0 then return end
  local scores = redis.call('ZMSCORE', K_STATE .. state, unpack(found))
  for i = 1, #found do
    if scores[i] and accepts(tonumber(scores[i])) then matches[i] = true end
  end
end
if wanted ~= '' and #found > 0 then
  if wanted == 'cooling' then
    look_in('ready', cools)
    look_in('new', cools)
  elseif wanted == 'ready' or wanted == 'new' then
    look_in(wanted, rests_not)
  else
    look_in(wanted, always)
  end
end

local page, last = {''}, ids[#ids]
for i, id in ipairs(found) do
  if wanted == '' or matches[i] then
    page[#page + 1] = id
    if #page > limit then
      last = id
      break
    end
  end
end
if #ids == tonumber(ARGV[5]) or last ~= ids[#ids] then page[1] = last end
return page
