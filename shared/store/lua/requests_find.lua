-- Looks through one stretch of the request log, the newest first; bounded work per call.
-- KEYS[1] tag: keys.LEDGER
-- ARGV[1] newest: where to begin: `+`, or `(` and the id of the record looked at last
-- ARGV[2] scan: how many records to look at, at most
-- ARGV[3] limit: how many to return, at most
-- ARGV[4] wanted: JSON list of lists of texts; a record is wanted that has one text of each list
-- returns found: {id of the record looked at last or '' at the end, ended at (ms), record, ended at, record, …}
local wanted = cjson.decode(ARGV[4])
local limit = tonumber(ARGV[3])

local function fits(record)
  for _, texts in ipairs(wanted) do
    local has = false
    for _, text in ipairs(texts) do
      if string.find(record, text, 1, true) then
        has = true
        break
      end
    end
    if not has then return false end
  end
  return true
end

local rows = redis.call('XREVRANGE', K_LEDGER_REQUESTS, ARGV[1], '-', 'COUNT', ARGV[2])
local found = {''}
for i, row in ipairs(rows) do
  local at, record = row[2][2], row[2][4]
  if fits(record) then
    found[#found + 1] = at
    found[#found + 1] = record
  end
  if i == tonumber(ARGV[2]) or (#found - 1) / 2 == limit then
    found[1] = row[1]
    break
  end
end
return found
