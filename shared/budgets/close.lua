-- close: the attempts of a run up to an epoch are over. Whatever they hold is spent, and they reserve nothing any more.
-- KEYS see lib.lua
-- ARGV 1 epoch
-- Answers {closed}.
local epoch = tonumber(ARGV[1])
local over, seen = unpack(redis.call('HMGET', KEYS[1], '.over', '.seen'))
settle_in_full(epoch)
local attempt = tonumber(string.match(seen or '', '^%d+'))
if attempt and attempt <= epoch then
  count_time(attempt)
  redis.call('HDEL', KEYS[1], '.seen')
end
redis.call('HSET', KEYS[1], '.over', math.max(epoch, tonumber(over or -1)))
save()
return {'closed'}
