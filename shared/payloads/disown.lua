-- disown: a blob that nothing has named in time will be deleted, and can be named no more.
-- KEYS 1 timers
-- ARGV 1 its marker, 2 what stands on the agenda instead until it is deleted
-- Answers 1, or 0 where it was named meanwhile (or disowned before).
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], 0, ARGV[2])
return 1
