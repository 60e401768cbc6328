-- cancel: a durable intent. A run that never started ends here; any other is ended by the worker that has it or claims it next.
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 timers
-- ARGV 1 thread id, 2 run id, 3 ring after (ms), 4 data of run.canceled
-- Answers {not_found}, {ended, the run to ring for or ''}, {canceled, the same} or {requested}.
local thread_id, run_id = ARGV[1], ARGV[2]
local k = {run = KEYS[1], metadata = KEYS[2], stream = KEYS[3], queue = KEYS[4], live = KEYS[5], timers = KEYS[6],
  ring_ms = tonumber(ARGV[3])}
local status, epoch, following = unpack(redis.call('HMGET', KEYS[1], 'status', 'epoch', 'next'))
if not status then return {'not_found'} end
if status == 'succeeded' or status == 'failed' or status == 'canceled' then return {'ended', following or ''} end
redis.call('HSET', KEYS[1], 'cancel', 1)
if status ~= 'pending' or epoch ~= '0' then return {'requested'} end
if redis.call('HGET', KEYS[2], 'head') == run_id then
  return {'canceled', finish(k, thread_id, run_id, 'canceled', 'run.canceled', ARGV[4])}
end
redis.call('LREM', KEYS[4], 1, run_id)
append(KEYS[3], KEYS[2], thread_id, run_id, 0, {'run.canceled', '', ARGV[4]})
redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', now_ms(), 'last_event', redis.call('HGET', KEYS[2], 'last_id'))
redis.call('HINCRBY', KEYS[1], 'seq', 1)
return {'canceled', ''}
