-- revive: an evicted thread comes back as SQL has it, but for its runs and events. Its ids go on rising.
-- KEYS 1 metadata, 2 messages, 3 snapshots, 4 idle, 5 dirty, 6 gone
-- ARGV 1 thread id, 2 when the caller began to read SQL (ms), 3 how long that is good for (ms), then counted lists: the
--      thread's fields (name, value), its messages, its snapshots
-- Answers {there}: it is in Redis, {deleted}, {stale}: read SQL again, or {revived}.
-- Nothing can be revived, used and evicted again within that time, so what was read is the thread as it was evicted.
if redis.call('EXISTS', KEYS[1]) == 1 then return {'there'} end
if was_deleted(KEYS[5], KEYS[6], ARGV[1]) then return {'deleted'} end
if now_ms() - tonumber(ARGV[2]) > tonumber(ARGV[3]) then return {'stale'} end
local fields, at = take(4, 2)
local messages, snapshots
messages, at = take(at, 1)
snapshots = take(at, 1)
redis.call('HSET', KEYS[1], unpack(fields))
local last_id = redis.call('HGET', KEYS[1], 'last_id')
local ms, n = string.match(last_id, '(%d+)-(%d+)')
redis.call('HSET', KEYS[1], 'archived_id', last_id, 'evicted_at', now_ms(),
  'kept_from', string.format('%.0f-%.0f', tonumber(ms), tonumber(n) + 1))
for _, message in ipairs(messages) do redis.call('RPUSH', KEYS[2], message) end
for _, snapshot in ipairs(snapshots) do redis.call('RPUSH', KEYS[3], snapshot) end
redis.call('ZADD', KEYS[4], now_ms(), ARGV[1])
return {'revived'}
