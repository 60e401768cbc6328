-- delete_run: an ended run is no more. SQL is told by its mark.
-- KEYS 1 run, 2 runs, 3 timers, 4 dirty, 5 and on: its other keys
-- ARGV 1 run id, then (counted) what is to be put on the agenda: its blobs, which are nobody's now
-- Answers {deleted}, {not_found} or {busy}: it has not ended, or its parent is yet to be told.
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {'not_found'} end
local ended = status == 'succeeded' or status == 'failed' or status == 'canceled'
if not ended or redis.call('ZSCORE', KEYS[3], 'tell|' .. ARGV[1]) then return {'busy'} end
redis.call('UNLINK', KEYS[1])
for i = 5, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('ZREM', KEYS[2], ARGV[1])
for _, blob in ipairs((take(2, 1))) do redis.call('ZADD', KEYS[3], 0, blob) end
redis.call('HSET', KEYS[4], ARGV[1], 'deleted')
return {'deleted'}
