-- release: an attempt ends. The run is over (succeeded, failed, canceled), waits, or goes back to pending.
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 rings, 7 timers, 8 messages, 9 journal, 10 waits, 11 inbox,
--      12 dirty
-- ARGV 1 thread id, 2 run id, 3 epoch, 4 op, 5 status, 6 ring after (ms), 7 event, 8 its data or the reason,
--      9 how many messages the run has taken in (succeeded), 10 'ending' when it waits for its end only (waiting),
--      then counted lists: the run's fields (name, value), the steps it waits for (key), markers of blobs that it names
-- Answers {ok, the run to ring for or ''}, {fenced, epoch, status}, {missing, marker}: that blob must be written again,
--      or {go_on, why, ...} when there is more to do first: 'canceled'; 'message' (one was put in); 'answered', then each
--      answered step's key and journal entry.
local thread_id, run_id, status = ARGV[1], ARGV[2], ARGV[5]
local refused = fence(KEYS[1], ARGV[3], ARGV[4])
if refused then
  if refused[1] == 'ok' then refused[2] = redis.call('HGET', KEYS[1], 'next') or '' end
  return refused
end
local k = keys_of_run()
k.ring_ms = tonumber(ARGV[6])
local fields, at = take(11, 2)
local steps, blobs
steps, at = take(at, 1)
blobs = take(at, 1)
local canceled, inbox = unpack(redis.call('HMGET', k.run, 'cancel', 'inbox'))

if canceled and status ~= 'canceled' and status ~= 'pending' and ARGV[10] ~= 'ending' then return {'go_on', 'canceled'} end
if status == 'succeeded' and tonumber(inbox or 0) > tonumber(ARGV[9]) then return {'go_on', 'message'} end
if status == 'waiting' then
  local answered = {'go_on', 'answered'}
  for _, key in ipairs(steps) do
    if redis.call('HEXISTS', k.waits, key) == 0 then
      answered[#answered + 1] = key
      answered[#answered + 1] = redis.call('HGET', k.journal, key)
    end
  end
  if #answered > 2 then return answered end
end

local gone = missing_blob(k.timers, blobs)
if gone then return {'missing', gone} end

name_blobs(k.timers, blobs)
redis.call('HSET', k.run, 'op', ARGV[4], unpack(fields))
count_time(k.run)
if status == 'pending' then
  redis.call('HSET', k.run, 'next', run_id)
  requeue(k, thread_id, run_id, ARGV[8])
  return {'ok', run_id}
end
if status == 'waiting' then
  append(k.stream, k.metadata, thread_id, run_id, ARGV[3], {ARGV[7], '', ARGV[8]})
  redis.call('HSET', k.run, 'status', 'waiting', 'worker', '', 'stalls', 0, 'next', '')
  mark(k.run, k.dirty, run_id)
  redis.call('HDEL', k.live, run_id)
  return {'ok', ''}
end
return {'ok', finish(k, thread_id, run_id, status, ARGV[7], ARGV[8])}
