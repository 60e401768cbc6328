-- commit: what a step did becomes true at once: its journal entry, the messages it adds, its events, the record's fields.
-- KEYS 1 run, 2 metadata, 3 stream, 4 journal, 5 messages
-- ARGV 1 thread id, 2 run id, 3 epoch, 4 op, then counted lists: steps (key, status, JSON), messages (JSON),
--      fields of the run (name, value), fields of the thread (name, value), events (type, step number, data)
-- A journal entry is `STATUS JSON`. Answers {ok, cancel}, {fenced, epoch, status} or {illegal, step key, from, to}.
local refused = fence(KEYS[1], ARGV[3], ARGV[4])
if refused then return refused end
local steps, messages, run_fields, thread_fields, events, at
steps, at = take(5, 3)
messages, at = take(at, 1)
run_fields, at = take(at, 2)
thread_fields, at = take(at, 2)
events = take(at, 3)

-- A finished step never changes: that is what "no step is repeated" rests on.
local allowed = {
  none = {running = true, succeeded = true, failed = true},
  running = {running = true, succeeded = true, failed = true, unknown = true, canceled = true},
  unknown = {succeeded = true, failed = true, running = true},
}
for i = 1, #steps, 3 do
  local from = string.match(redis.call('HGET', KEYS[4], steps[i]) or 'none', '^%S+')
  if not (allowed[from] and allowed[from][steps[i + 1]]) then return {'illegal', steps[i], from, steps[i + 1]} end
end

for i = 1, #steps, 3 do
  redis.call('HSET', KEYS[4], steps[i], steps[i + 1] .. ' ' .. steps[i + 2])
  if steps[i + 1] ~= 'running' then redis.call('HSET', KEYS[1], 'stalls', 0) end
end
for i = 1, #messages do redis.call('RPUSH', KEYS[5], messages[i]) end
redis.call('HSET', KEYS[1], 'op', ARGV[4], unpack(run_fields))
redis.call('HINCRBY', KEYS[1], 'seq', 1)
if #thread_fields > 0 then redis.call('HSET', KEYS[2], unpack(thread_fields)) end
if #events > 0 then append(KEYS[3], KEYS[2], ARGV[1], ARGV[2], ARGV[3], events) end
return {'ok', redis.call('HGET', KEYS[1], 'cancel') or ''}
