-- signal: an open wait of a run gets its answer, whatever the run does at the moment. Who repeats it changes nothing.
-- KEYS 1 run, 2 metadata, 3 stream, 4 journal, 5 waits, 6 live, 7 rings, 8 timers, 9 dirty
-- ARGV 1 thread id, 2 run id, 3 step key, 4 the step's status now, 5 the answer (JSON object: fields of the step),
--      6 event, 7 its data, 8 ring after (ms), 9 the kinds of wait that may be answered so, with commas around each,
--      10 a name for who answers or '', 11 markers of the blobs that the answer names (counted)
-- Answers {answered, the run to ring for or ''}: by this call or by an earlier one of the same name; {settled, the
--      same}: it does not wait (any more), {not_found}, or {missing, marker}: the blob must be written again.
-- A journal entry is `STATUS JSON`; an answered one has the answer on a second line, and its times on the last.
local thread_id, run_id, key = ARGV[1], ARGV[2], ARGV[3]
local status, epoch = unpack(redis.call('HMGET', KEYS[1], 'status', 'epoch'))
local entry = redis.call('HGET', KEYS[4], key)
if not status or not entry then return {'not_found'} end
local by = 'answer:' .. ARGV[10]
if ARGV[10] ~= '' and redis.call('HEXISTS', KEYS[1], by) == 1 then
  return {'answered', status == 'pending' and run_id or ''}
end
local kind = redis.call('HGET', KEYS[5], key)
if not kind or not string.find(ARGV[9], ',' .. kind .. ',', 1, true) then
  return {'settled', status == 'pending' and run_id or ''}
end
local blobs = take(11, 1)
local gone = missing_blob(KEYS[8], blobs)
if gone then return {'missing', gone} end
name_blobs(KEYS[8], blobs)
local k = {run = KEYS[1], live = KEYS[6], rings = KEYS[7], dirty = KEYS[9], ring_ms = tonumber(ARGV[8])}
redis.call('HSET', KEYS[4], key, ARGV[4] .. ' ' .. string.match(entry, '^%S+ ([^\n]*)') .. '\n' .. ARGV[5]
  .. times(entry, false, ARGV[4] ~= 'pending'))
close_wait(KEYS[5], KEYS[8], run_id, key)
append(KEYS[3], KEYS[2], thread_id, run_id, epoch, {ARGV[6], string.match(entry, '"number":(%d+)'), ARGV[7]})
mark(KEYS[1], KEYS[9], run_id)
if ARGV[10] ~= '' then redis.call('HSET', KEYS[1], by, key) end
if status == 'waiting' then make_pending(k, run_id) end
return {'answered', status ~= 'running' and run_id or ''}
