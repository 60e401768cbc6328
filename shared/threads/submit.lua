-- submit: a new run enters its thread. Idempotent by run id.
-- KEYS 1 metadata, 2 run, 3 runs, 4 queue, 5 stream, 6 timers
-- ARGV 1 thread id, 2 run id, 3 what to do when the thread is busy (enqueue | reject), 4 ring after (ms),
--      5 data of run.queued (JSON), 6.. the record's fields, name and value in turn
-- Answers {accepted, created_at, status, 1 if the caller must ring the queue}, {not_found}, {archived} or {busy, head run}.
local thread_id, run_id = ARGV[1], ARGV[2]
local known = redis.call('HMGET', KEYS[2], 'created_at', 'status', 'epoch')
if known[1] then
  return {'accepted', known[1], known[2], known[2] == 'pending' and redis.call('HGET', KEYS[1], 'head') == run_id and 1 or 0}
end
local status, head = unpack(redis.call('HMGET', KEYS[1], 'status', 'head'))
if not status then return {'not_found'} end
if status ~= 'active' then return {'archived'} end
if head and ARGV[3] == 'reject' then return {'busy', head} end

local now = now_ms()
redis.call('HSET', KEYS[2], 'status', 'pending', 'epoch', 0, 'seq', 1, 'stalls', 0, 'step', 1, 'created_at', now,
  unpack(ARGV, 6))
redis.call('ZADD', KEYS[3], now, run_id)
local id = append(KEYS[5], KEYS[1], thread_id, run_id, 0, {'run.queued', '', ARGV[5]})
redis.call('HSET', KEYS[2], 'first_event', id)
if head then
  redis.call('RPUSH', KEYS[4], run_id)
  return {'accepted', now, 'pending', 0}
end
redis.call('HSET', KEYS[1], 'head', run_id)
redis.call('ZADD', KEYS[6], now + tonumber(ARGV[4]), 'ring|' .. run_id)
return {'accepted', now, 'pending', 1}
