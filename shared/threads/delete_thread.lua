-- delete_thread: a thread in which nothing goes on is no more. SQL is told by its mark.
-- KEYS 1 metadata, 2 runs, 3 timers, 4 dirty, 5 idle, 6 and on: all its other keys
-- ARGV 1 thread id, 2 which version of it is expected, or '', 3 its last event as the caller read it, then counted
--      lists: its runs' ids, what is to be put on the agenda: its blobs, which are nobody's now
-- Answers {deleted}, by now or before, {changed} or evicted: read it again, {stale, its version}, or {busy}: a run has
--      not ended, or its parent is yet to be told.
if redis.call('HGET', KEYS[4], ARGV[1]) == 'deleted' then return {'deleted'} end
local runs, at = take(4, 1)
local last_id, head = unpack(redis.call('HMGET', KEYS[1], 'last_id', 'head'))
local refused = last_id and stale(KEYS[1], ARGV[2])
if refused then return refused end
if head then return {'busy'} end
if last_id ~= ARGV[3] or redis.call('ZCARD', KEYS[2]) ~= #runs then return {'changed'} end
for _, run_id in ipairs(runs) do
  if redis.call('ZSCORE', KEYS[3], 'tell|' .. run_id) then return {'busy'} end
end
for _, run_id in ipairs(runs) do redis.call('HDEL', KEYS[4], run_id) end
redis.call('UNLINK', KEYS[1], KEYS[2])
for i = 6, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('ZREM', KEYS[5], ARGV[1])
for _, blob in ipairs((take(at, 1))) do redis.call('ZADD', KEYS[3], 0, blob) end
redis.call('HSET', KEYS[4], ARGV[1], 'deleted')
return {'deleted'}
