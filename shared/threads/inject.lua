-- inject: a message for a run that goes on; it is taken in at the end of its turn. Idempotent by the message's text.
-- KEYS 1 run, 2 metadata, 3 stream, 4 inbox, 5 dirty
-- ARGV 1 thread id, 2 run id, 3 message (JSON with an id of its own), 4 data of agent.message
-- Answers {accepted}, {ended} or {not_found}.
local status, epoch = unpack(redis.call('HMGET', KEYS[1], 'status', 'epoch'))
if not status then return {'not_found'} end
if redis.call('LPOS', KEYS[4], ARGV[3]) then return {'accepted'} end
if status == 'succeeded' or status == 'failed' or status == 'canceled' then return {'ended'} end
redis.call('RPUSH', KEYS[4], ARGV[3])
redis.call('HINCRBY', KEYS[1], 'inbox', 1)
mark(KEYS[1], KEYS[5], ARGV[2])
append(KEYS[3], KEYS[2], ARGV[1], ARGV[2], epoch, {'agent.message', '', ARGV[4]})
return {'accepted'}
