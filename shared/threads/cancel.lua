-- cancel: asks for the end of a run (see `cancel` in lib.lua).
-- KEYS 1 run, 2 metadata, 3 stream, 4 queue, 5 live, 6 rings, 7 timers, 8 messages, 9 journal, 10 waits, 11 inbox,
--      12 dirty
-- ARGV 1 thread id, 2 run id, 3 ring after (ms), 4 data of run.canceled
-- Answers {not_found}, {ended, the run to ring for or ''}, {canceled, the same} or {requested, the same}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not_found'} end
local k = keys_of_run()
k.ring_ms = tonumber(ARGV[3])
return cancel(k, ARGV[1], ARGV[2], ARGV[4])
