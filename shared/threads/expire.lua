-- expire: takes a running run from a worker whose lease has ended. The sweeper calls it.
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 rings, 7 timers, 8 messages, 9 journal, 10 waits, 11 inbox,
--      12 dirty
-- ARGV 1 thread id, 2 run id, 3 worker, 4 ring after (ms), 5 attempts without a committed step before the run fails,
--      6 data of run.failed in that case, 7 the run's error in that case
-- Answers {requeued, run}, {failed, the run to ring for or ''}, or {kept, the run to ring for or ''}: it is not that
--      worker's, and the index was put right. A repeated call finds what the first one made of it, and rings for it.
local thread_id, run_id, worker = ARGV[1], ARGV[2], ARGV[3]
local k = keys_of_run()
k.ring_ms = tonumber(ARGV[4])
local status, owner, following = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker', 'next'))
if status ~= 'running' or owner ~= worker then
  if redis.call('HGET', KEYS[5], run_id) == worker then redis.call('HDEL', KEYS[5], run_id) end
  return {'kept', status == 'pending' and run_id or following or ''}
end
count_time(KEYS[1])
if redis.call('HINCRBY', KEYS[1], 'stalls', 1) >= tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[1], 'error', ARGV[7])
  return {'failed', finish(k, thread_id, run_id, 'failed', 'run.failed', ARGV[6])}
end
requeue(k, thread_id, run_id, 'worker_lost')
return {'requeued', run_id}
