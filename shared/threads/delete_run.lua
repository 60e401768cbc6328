-- delete_run: an ended run is no more. SQL is told by its mark.
-- KEYS 1 run, 2 runs, 3 timers, 4 dirty, 5 metadata, 6 and on: its other keys
-- ARGV 1 run id, 2 which version of it is expected, or '', 3 where the caller saw it (redis | archive: its thread is
--      evicted), then (counted) what is to be put on the agenda: its blobs, which are nobody's now
-- Answers {deleted}, by now or before, {moved}: it is elsewhere by now, {stale, its version}, or {busy}: it has not
--      ended, or its parent is yet to be told.
if redis.call('HGET', KEYS[4], ARGV[1]) == 'deleted' then return {'deleted'} end
if ARGV[3] == 'archive' then
  if redis.call('EXISTS', KEYS[5]) == 1 then return {'moved'} end
else
  local status = redis.call('HGET', KEYS[1], 'status')
  if not status then return {'moved'} end
  local refused = stale(KEYS[1], ARGV[2])
  if refused then return refused end
  local ended = status == 'succeeded' or status == 'failed' or status == 'canceled'
  if not ended or redis.call('ZSCORE', KEYS[3], 'tell|' .. ARGV[1]) then return {'busy'} end
end
redis.call('UNLINK', KEYS[1])
for i = 6, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('ZREM', KEYS[2], ARGV[1])
for _, blob in ipairs((take(4, 1))) do redis.call('ZADD', KEYS[3], 0, blob) end
redis.call('HSET', KEYS[4], ARGV[1], 'deleted')
return {'deleted'}
