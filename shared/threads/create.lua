-- create: a new thread. Idempotent by thread id.
-- KEYS 1 metadata, 2 messages
-- ARGV counted lists: the thread's fields (name, value), the messages that it begins with
-- Answers the thread's hash, flattened.
if redis.call('EXISTS', KEYS[1]) == 0 then
  local fields, at = take(1, 2)
  redis.call('HSET', KEYS[1], 'status', 'active', 'created_at', now_ms(), 'last_id', '0-0', unpack(fields))
  for _, message in ipairs((take(at, 1))) do redis.call('RPUSH', KEYS[2], message) end
end
return redis.call('HGETALL', KEYS[1])
