-- commit: what a step did becomes true at once: its journal entry, the messages it adds, its events, the record's fields.
-- KEYS 1 run, 2 metadata, 3 stream, 4 journal, 5 messages, 6 waits, 7 timers, 8 steps, 9 dirty
-- ARGV 1 thread id, 2 run id, 3 epoch, 4 op, then counted lists: steps (key, status, JSON, and for one that waits: the
--      kind of wait, when its time is up in ms or ''), messages (JSON), fields of the run (name, value), fields of the
--      thread (name, value), events (type, step number, data), markers of the blobs that the steps name
-- A journal entry is `STATUS JSON`, then on a line of its own where in the conversation its messages begin, if it adds
-- any, and last its times.
-- The record's `begin` is where the run's own do. Answers {ok, cancel, messages put in}, {fenced, epoch, status},
--      {illegal, step key, from, to} or {missing, marker}: the blob must be written again.
local refused = fence(KEYS[1], ARGV[3], ARGV[4])
if refused then return refused end
local steps, messages, run_fields, thread_fields, events, blobs, at
steps, at = take(5, 5)
messages, at = take(at, 1)
run_fields, at = take(at, 2)
thread_fields, at = take(at, 2)
events, at = take(at, 3)
blobs = take(at, 1)
local gone = missing_blob(KEYS[7], blobs)
if gone then return {'missing', gone} end

-- A finished step never changes: that is what "no step is repeated" rests on.
local start = {
  pending = true, running = true, waiting = true, waiting_human = true, unknown = true, succeeded = true, failed = true,
}
local allowed = {
  none = start,
  pending = start, -- put off; or an unknown outcome that somebody decided to repeat
  running = {pending = true, running = true, succeeded = true, failed = true, unknown = true, canceled = true},
  waiting = {succeeded = true, failed = true},
  waiting_human = {},
  unknown = {},
}
for i = 1, #steps, 5 do
  local from = string.match(redis.call('HGET', KEYS[4], steps[i]) or 'none', '^%S+')
  if not (allowed[from] and allowed[from][steps[i + 1]]) then return {'illegal', steps[i], from, steps[i + 1]} end
end

local place = redis.call('LLEN', KEYS[5])
local placed = #messages > 0 and '\n{"place":' .. place .. '}' or ''
for i = 1, #steps, 5 do
  local key, status, kind, due = steps[i], steps[i + 1], steps[i + 3], steps[i + 4]
  local going_on = status == 'running' or kind ~= ''
  local known = times(redis.call('HGET', KEYS[4], key), going_on, not going_on and status ~= 'pending')
  redis.call('HSET', KEYS[4], key, status .. ' ' .. steps[i + 2] .. placed .. known)
  redis.call('ZADD', KEYS[8], string.match(steps[i + 2], '"number":(%d+)'), key)
  if status ~= 'running' and status ~= 'pending' then redis.call('HSET', KEYS[1], 'stalls', 0) end
  if kind ~= '' then
    redis.call('HSET', KEYS[6], key, kind)
    if due ~= '' then redis.call('ZADD', KEYS[7], due, 'wake|' .. ARGV[2] .. '|' .. key) end
  elseif redis.call('HEXISTS', KEYS[6], key) == 1 then
    close_wait(KEYS[6], KEYS[7], ARGV[2], key)
  end
end
name_blobs(KEYS[7], blobs)
if #messages > 0 then redis.call('HSETNX', KEYS[1], 'begin', place) end
for i = 1, #messages do redis.call('RPUSH', KEYS[5], messages[i]) end
redis.call('HSET', KEYS[1], 'op', ARGV[4], unpack(run_fields))
mark(KEYS[1], KEYS[9], ARGV[2])
if #thread_fields > 0 then
  redis.call('HSET', KEYS[2], unpack(thread_fields))
  redis.call('HINCRBY', KEYS[2], 'seq', 1)
end
if #events > 0 then append(KEYS[3], KEYS[2], ARGV[1], ARGV[2], ARGV[3], events) end
return news(KEYS[1])
