-- Writes what became of some requests: sums by day, the log, the uses of accounts; once per number.
-- KEYS[1] tag: keys.LEDGER
-- ARGV[1] process: whose write this is
-- ARGV[2] number: of the write, grows by one per process
-- ARGV[3] days: how many the sums are kept, the day itself included
-- ARGV[4] records: how many the log keeps, about
-- ARGV[5] uses: how many are kept of an account
-- ARGV[6] errors: how many are kept of an account
-- ARGV[7...] entries: JSON {age_ms, record: its JSON as text, key: [id, name], sums: [[by, id, requests, input, output, failures]], uses: [[account, its JSON as text, failed]]}
-- returns written: 1
-- returns repeated: 0; this number was written before, nothing was changed
local DAY_MS = 86400000
local written = K_LEDGER_WRITTEN .. ARGV[1]
if tonumber(redis.call('GET', written) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', written, ARGV[2], 'PX', DAY_MS)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local days = tonumber(ARGV[3])

-- A sum is one field, `requests input output failures`: a fourth of the memory of four fields.
local function add(day, s)
  local sums = string.format('%s%s:%d', K_LEDGER_SUMS, s[1], day)
  local old = redis.call('HGET', sums, s[2])
  local total = {s[3], s[4], s[5], s[6]}
  if old then
    local i = 0
    for number in string.gmatch(old, '%d+') do
      i = i + 1
      total[i] = total[i] + tonumber(number)
    end
  end
  redis.call('HSET', sums, s[2], string.format('%.0f %.0f %.0f %.0f', unpack(total)))
  if not old and redis.call('HLEN', sums) == 1 then
    redis.call('PEXPIREAT', sums, string.format('%.0f', (day + days) * DAY_MS))
  end
end

local function keep(list, text, most)
  redis.call('LPUSH', list, text)
  redis.call('LTRIM', list, 0, most - 1)
  redis.call('PEXPIRE', list, days * DAY_MS)
end

for i = 7, #ARGV do
  local entry = cjson.decode(ARGV[i])
  local at = string.format('%.0f', now - entry.age_ms)
  local day = math.floor((now - entry.age_ms) / DAY_MS)
  for _, s in ipairs(entry.sums) do add(day, s) end
  if entry.key[1] ~= '' and entry.key[2] ~= '' then
    redis.call('HSET', K_LEDGER_KEYS, entry.key[1], entry.key[2])
  end
  for _, use in ipairs(entry.uses) do
    keep(K_LEDGER_USES .. use[1], at .. ' ' .. use[2], ARGV[5])
    if use[3] then keep(K_LEDGER_ERRORS .. use[1], at .. ' ' .. use[2], ARGV[6]) end
  end
  redis.call('XADD', K_LEDGER_REQUESTS, 'MAXLEN', '~', ARGV[4], '*', 'at', at, 'record', entry.record)
end
return 1
