-- matches: waiters of a topic whose event has come. They stay until they are taken away (ZREM), so a crash loses none.
-- KEYS 1 events (STREAM), 2 waiters (ZSET), 3 deliveries (ZSET of topics)
-- ARGV 1 topic, 2 how many at most, 3 how many first ones to leave out
-- Answers {waiter, id, event} flattened. An empty answer, if none are left out, takes the topic off the deliveries.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = {}
if last then
  local waiting = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.match(last[1], '^%d+'), 'WITHSCORES',
    'LIMIT', ARGV[3], ARGV[2])
  for i = 1, #waiting, 2 do
    local event = redis.call('XRANGE', KEYS[1], '(' .. string.format('%.0f', waiting[i + 1]) .. '-0', '+', 'COUNT', 1)[1]
    for _, item in ipairs({waiting[i], event[1], event[2][2]}) do found[#found + 1] = item end
  end
end
if #found == 0 and ARGV[3] == '0' then redis.call('ZREM', KEYS[3], ARGV[1]) end
return found
