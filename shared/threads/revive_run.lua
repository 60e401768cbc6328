-- revive_run: an ended run of a revived thread comes back with its journal, as SQL has it.
-- KEYS 1 metadata, 2 run, 3 journal, 4 steps, 5 runs, 6 dirty, 7 gone
-- ARGV 1 run id, 2 when it was created (ms), then counted lists: its record's fields (name, value), its journal (step
--      key, number, entry)
-- Answers {gone}: the thread is not in Redis, {there}, {deleted} or {revived}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'there'} end
if was_deleted(KEYS[6], KEYS[7], ARGV[1]) then return {'deleted'} end
local fields, at = take(3, 2)
-- A record has a field for each named answer, and `unpack` takes fewer than 8,000 values.
for i = 1, #fields, 1000 do redis.call('HSET', KEYS[2], unpack(fields, i, math.min(i + 999, #fields))) end
local steps = take(at, 3)
for i = 1, #steps, 3 do
  redis.call('HSET', KEYS[3], steps[i], steps[i + 2])
  redis.call('ZADD', KEYS[4], steps[i + 1], steps[i])
end
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
return {'revived'}
