-- patch: what its owner says of a run or a thread changes (labels, a name, whether it takes more runs).
-- KEYS 1 the run or the thread's metadata, 2 dirty
-- ARGV 1 the run's or thread's id, 2 which version of it is expected, or '', 3 a name for this call, to repeat it
--      safely, then its fields (name, value), counted
-- Answers {patched}, {stale, its version} or {not_found}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'not_found'} end
if redis.call('HGET', KEYS[1], 'patch') == ARGV[3] then return {'patched'} end
local refused = stale(KEYS[1], ARGV[2])
if refused then return refused end
local fields = take(4, 2)
if #fields == 0 then return {'patched'} end
local revision = redis.call('HGET', KEYS[1], 'revision') or 1
redis.call('HSET', KEYS[1], 'revision', revision + 1, 'patch', ARGV[3], unpack(fields))
mark(KEYS[1], KEYS[2], ARGV[1])
return {'patched'}
