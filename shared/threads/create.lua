-- create: a new thread. Idempotent by thread id.
-- KEYS 1 metadata, 2 messages, 3 dirty, 4 gone
-- ARGV 1 thread id, then
--      counted lists: the thread's fields (name, value), the messages that it begins with
-- Answers the thread's hash, flattened; of one that was deleted nothing.
if redis.call('EXISTS', KEYS[1]) == 0 then
  if was_deleted(KEYS[3], KEYS[4], ARGV[1]) then return {} end
  local fields, at = take(2, 2)
  redis.call('HSET', KEYS[1], 'status', 'active', 'created_at', now_ms(), 'last_id', '0-0', unpack(fields))
  for _, message in ipairs((take(at, 1))) do redis.call('RPUSH', KEYS[2], message) end
  mark_thread(KEYS[1], KEYS[3], ARGV[1])
end
return redis.call('HGETALL', KEYS[1])
