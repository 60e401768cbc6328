-- publish: an event is stored under its topic, for those who wait for it and those who will. Idempotent by its own key.
-- KEYS 1 events (STREAM), 2 waiters (ZSET), 3 deliveries (ZSET of topics), 4 the id under this event's key (STRING)
-- ARGV 1 topic, 2 event (JSON), 3 retention (ms), 4 most events kept, 5 '1' if the event has a key of its own
-- Answers {id, 1 if somebody waits for it}.
-- An id is `MS-0`, one ms after the last at least, so that MS alone orders events and can be a waiter's score.
local now = now_ms()
local id = ARGV[5] == '1' and redis.call('GET', KEYS[4])
if not id then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local ms = math.max(now, last and tonumber(string.match(last[1], '^%d+')) + 1 or 0)
  id = string.format('%.0f-0', ms)
  redis.call('XADD', KEYS[1], id, 'e', ARGV[2])
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', now - tonumber(ARGV[3])))
  redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  if ARGV[5] == '1' then redis.call('SET', KEYS[4], id, 'PX', ARGV[3]) end
end
local ms = string.match(id, '^%d+')
if redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. ms) == 0 then return {id, 0} end
redis.call('ZADD', KEYS[3], now, ARGV[1])
return {id, 1}
