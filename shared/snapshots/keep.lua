-- keep: names a snapshot, whose parts are stored, and gives up those that are too many.
-- KEYS 1 the thread's snapshots, 2 timers
-- ARGV 1 the snapshot (JSON), 2 how many are kept, 3... the markers of its parts
-- Answers 1, or 0 where a part was cleaned up meanwhile; 1 again where it was named by this call before.
if redis.call('LINDEX', KEYS[1], -1) == ARGV[1] then return 1 end
for i = 3, #ARGV do
  if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then return 0 end
end
for i = 3, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end
redis.call('RPUSH', KEYS[1], ARGV[1])
while redis.call('LLEN', KEYS[1]) > tonumber(ARGV[2]) do
  for _, part in ipairs(cjson.decode(redis.call('LPOP', KEYS[1])).parts) do
    local name = part.store .. '/' .. part.sha256 .. '.' .. part.upload
    redis.call('ZADD', KEYS[2], 0, 'gone|' .. part.thread_id .. '|' .. name)
  end
end
return 1
