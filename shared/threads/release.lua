-- release: an attempt ends; the run is over (succeeded, failed, canceled) or goes back to pending for another worker.
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 timers
-- ARGV 1 thread id, 2 run id, 3 epoch, 4 op, 5 status, 6 ring after (ms), 7 event, 8 its data or the reason, 9.. the run's fields
-- Answers {ok, the run to ring for or ''} or {fenced, epoch, status}.
local thread_id, run_id, status = ARGV[1], ARGV[2], ARGV[5]
local refused = fence(KEYS[1], ARGV[3], ARGV[4])
if refused then
  if refused[1] == 'ok' then refused[2] = redis.call('HGET', KEYS[1], 'next') or '' end
  return refused
end
local k = {run = KEYS[1], metadata = KEYS[2], stream = KEYS[3], queue = KEYS[4], live = KEYS[5], timers = KEYS[6],
  ring_ms = tonumber(ARGV[6])}
redis.call('HSET', KEYS[1], 'op', ARGV[4], unpack(ARGV, 9))
if status == 'pending' then
  redis.call('HSET', KEYS[1], 'next', run_id)
  requeue(k, thread_id, run_id, ARGV[8])
  return {'ok', run_id}
end
return {'ok', finish(k, thread_id, run_id, status, ARGV[7], ARGV[8])}
