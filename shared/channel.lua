-- channel: adds an agent-level event to its workspace's stream, and says so on the channel of the same name.
-- KEYS 1 stream, 2 its last id (STRING), which outlives it
-- ARGV 1 entries kept, about, 2 for how long after the last one (ms), 3 how long the last id is known (ms), 4.. fields
-- Answers the event's id, max(TIME, last id + 1).
-- An entry names the one before it (b), there or not: so whoever reads on from any place knows whether something is gone.
local last = redis.call('GET', KEYS[2])
if not last then
  local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-0'
end
local last_ms, last_n = string.match(last, '(%d+)-(%d+)')
local ms, n = now_ms(), 0
if ms <= tonumber(last_ms) then ms, n = tonumber(last_ms), tonumber(last_n) + 1 end
local id = string.format('%.0f-%.0f', ms, n)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, 'b', last, unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], id, 'PX', ARGV[3])
redis.call('SPUBLISH', KEYS[1], '') -- "look", and no more: a gateway that misses it looks by itself within seconds
return id
