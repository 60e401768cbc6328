-- expire: takes a running run from a worker whose lease has ended. The sweeper calls it.
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 timers
-- ARGV 1 thread id, 2 run id, 3 worker, 4 ring after (ms), 5 attempts without a committed step before the run fails,
--      6 data of run.failed in that case, 7 the run's error in that case
-- Answers {expired, the run to ring for or ''} or {kept}: it ended or went on elsewhere, and the index was put right.
local thread_id, run_id, worker = ARGV[1], ARGV[2], ARGV[3]
local k = {run = KEYS[1], metadata = KEYS[2], stream = KEYS[3], queue = KEYS[4], live = KEYS[5], timers = KEYS[6],
  ring_ms = tonumber(ARGV[4])}
local status, owner = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker'))
if status ~= 'running' or owner ~= worker then
  if redis.call('HGET', KEYS[5], run_id) == worker then redis.call('HDEL', KEYS[5], run_id) end
  return {'kept'}
end
if redis.call('HINCRBY', KEYS[1], 'stalls', 1) >= tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[1], 'error', ARGV[7])
  return {'expired', finish(k, thread_id, run_id, 'failed', 'run.failed', ARGV[6])}
end
requeue(k, thread_id, run_id, 'worker_lost')
return {'expired', run_id}
