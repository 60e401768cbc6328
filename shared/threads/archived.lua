-- archived: SQL has what the archiver read of a thread. It is dirty no more, unless it has changed since; events that
-- are old enough, and in SQL, leave the stream.
-- KEYS 1 metadata, 2 stream, 3 dirty, 4 idle, 5 and on: `gone` of each that was read as deleted
-- ARGV 1 thread id, 2 the last event that SQL has, 3 for how long events stay (ms), 4 for how long somebody may be late
--      with what he read of SQL before (ms), then (counted) what was read: member of dirty, its mark
-- Answers {archived} or {gone}: deleted, or evicted by another archiver.
local thread_id, archived_id = ARGV[1], ARGV[2]
for i = 5, #KEYS do redis.call('SET', KEYS[i], 1, 'PX', ARGV[4]) end
local read = take(5, 2)
for i = 1, #read, 2 do
  if redis.call('HGET', KEYS[3], read[i]) == read[i + 1] then redis.call('HDEL', KEYS[3], read[i]) end
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end
local head, known = unpack(redis.call('HMGET', KEYS[1], 'head', 'archived_id'))
if later(archived_id, known or '0-0') then
  redis.call('HSET', KEYS[1], 'archived_id', archived_id)
else
  archived_id = known or '0-0'
end
local ms, n = string.match(archived_id, '(%d+)-(%d+)')
local cut = string.format('%.0f-%.0f', tonumber(ms), tonumber(n) + 1)
local old = string.format('%.0f-0', now_ms() - tonumber(ARGV[3]))
if later(cut, old) then cut = old end
-- Events below `kept_from` are in SQL only.
if redis.call('XTRIM', KEYS[2], 'MINID', '=', cut) > 0 then redis.call('HSET', KEYS[1], 'kept_from', cut) end
if head then redis.call('ZREM', KEYS[4], thread_id) else redis.call('ZADD', KEYS[4], now_ms(), thread_id) end
return {'archived'}
