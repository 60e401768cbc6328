-- emit: events of a running attempt, for its clients' eyes only (token deltas, a command's output).
-- KEYS 1 run, 2 metadata, 3 stream
-- ARGV 1 thread id, 2 run id, 3 epoch, 4 op, 5.. events (count, then type, step number, data each)
-- Answers {ok, 1 if the run is to be canceled, messages put in} or {fenced, epoch, status}.
local refused = fence(KEYS[1], ARGV[3], ARGV[4])
if refused then return refused end
append(KEYS[3], KEYS[2], ARGV[1], ARGV[2], ARGV[3], (take(5, 3)))
redis.call('HSET', KEYS[1], 'op', ARGV[4])
return news(KEYS[1])
