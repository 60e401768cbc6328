-- register: a step waits for an event of a topic, unless there is one already. Idempotent by waiter.
-- KEYS 1 events (STREAM), 2 waiters (ZSET, waiter by the ms of the last event that does not count)
-- ARGV 1 waiter, 2 that ms
-- Answers the first event after it as {id, event}, or {}: the waiter is registered.
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[2] .. '-0', '+', 'COUNT', 1)[1]
if found then return {found[1], found[2][2]} end
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
return {}
