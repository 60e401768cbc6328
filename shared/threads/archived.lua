-- archived: SQL has what the archiver read of a thread. It is dirty no more, unless it has changed since; events that
-- are old enough, and in SQL, leave the stream.
-- KEYS 1 metadata, 2 stream, 3 dirty, 4 idle
-- ARGV 1 thread id, 2 the last event that SQL has, 3 for how long events stay (ms), then (counted) what was read:
--      member of dirty, its mark
-- Answers {kept_from or '', how many of them have changed since}. `kept_from`: events below this id are in SQL only.
local thread_id, archived_id = ARGV[1], ARGV[2]
local changed, read = 0, take(4, 2)
for i = 1, #read, 2 do
  local mark = redis.call('HGET', KEYS[3], read[i])
  if mark == read[i + 1] then redis.call('HDEL', KEYS[3], read[i]) elseif mark then changed = changed + 1 end
end
local head, known, kept_from = unpack(redis.call('HMGET', KEYS[1], 'head', 'archived_id', 'kept_from'))
if redis.call('EXISTS', KEYS[1]) == 0 then return {'', changed} end -- deleted, or evicted by another archiver
if later(archived_id, known or '0-0') then
  redis.call('HSET', KEYS[1], 'archived_id', archived_id)
else
  archived_id = known or '0-0'
end
local ms, n = string.match(archived_id, '(%d+)-(%d+)')
local cut = string.format('%.0f-%.0f', tonumber(ms), tonumber(n) + 1)
local old = string.format('%.0f-0', now_ms() - tonumber(ARGV[3]))
if later(cut, old) then cut = old end
if redis.call('XTRIM', KEYS[2], 'MINID', '=', cut) > 0 then
  kept_from = cut
  redis.call('HSET', KEYS[1], 'kept_from', cut)
end
if head then redis.call('ZREM', KEYS[4], thread_id) else redis.call('ZADD', KEYS[4], now_ms(), thread_id) end
return {kept_from or '', changed}
