-- create: a new thread. Idempotent by thread id.
-- KEYS 1 metadata
-- ARGV the thread's fields, name and value in turn
-- Answers the thread's hash, flattened.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'status', 'active', 'created_at', now_ms(), 'last_id', '0-0', unpack(ARGV))
end
return redis.call('HGETALL', KEYS[1])
