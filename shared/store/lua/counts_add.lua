-- Adds what a job process counted.
-- KEYS[1] tag: keys.DUE
-- ARGV[1...] pairs: sample, increase, sample, increase …
-- returns added: how many samples
for i = 1, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', K_JOB_COUNTS, ARGV[i], ARGV[i + 1])
end
return #ARGV / 2
