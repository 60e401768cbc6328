-- patch: what its owner says of a run or a thread changes (labels, a name, whether it takes more runs).
-- KEYS 1 the run or the thread's metadata, 2 dirty
-- ARGV 1 the run's or thread's id, then its fields (name, value), counted
-- Answers {patched} or {not_found}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not_found'} end
redis.call('HSET', KEYS[1], unpack((take(2, 2))))
mark(KEYS[1], KEYS[2], ARGV[1])
return {'patched'}
