-- open_stream: streams of one key are open for so long from now on.
-- KEYS 1 streams (ZSET, stream by the end of its lease in ms)
-- ARGV 1 lease (ms), 2 how many streams the key may have (0: as many as it likes), 3.. streams
-- Answers how many it has now, or 0 when that would be too many and nothing was changed.
local now = now_ms()
local lease, most = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if most > 0 and redis.call('ZCARD', KEYS[1]) + #ARGV - 2 > most then return 0 end
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now + lease, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], lease)
return redis.call('ZCARD', KEYS[1])
