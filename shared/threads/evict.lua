-- evict: a thread in which nothing goes on leaves Redis, because SQL has all of it as the caller read it.
-- KEYS 1 metadata, 2 queue, 3 messages, 4 runs, 5 snapshots, 6 dirty, 7 idle, 8 and on: all its other keys
-- ARGV 1 thread id, 2 its last event, 3 its seq, 4 how many messages it has, then counted lists: its runs' ids,
--      its snapshots
-- Answers {evicted} or {kept}: something goes on, has changed, or is not archived; it is looked at again later.
local runs, at = take(5, 1)
local snapshots = take(at, 1)
local last_id, seq, head, archived_id = unpack(redis.call('HMGET', KEYS[1], 'last_id', 'seq', 'head', 'archived_id'))

local function whole()
  if last_id ~= ARGV[2] or seq ~= ARGV[3] or head or (archived_id or '0-0') ~= last_id then return false end
  if redis.call('LLEN', KEYS[2]) > 0 or redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[4]) then return false end
  if redis.call('ZCARD', KEYS[4]) ~= #runs or redis.call('HEXISTS', KEYS[6], ARGV[1]) == 1 then return false end
  for _, run_id in ipairs(runs) do
    if not redis.call('ZSCORE', KEYS[4], run_id) or redis.call('HEXISTS', KEYS[6], run_id) == 1 then return false end
  end
  return table.concat(redis.call('LRANGE', KEYS[5], 0, -1)) == table.concat(snapshots)
end

if not whole() then
  if last_id then redis.call('ZADD', KEYS[7], now_ms(), ARGV[1]) else redis.call('ZREM', KEYS[7], ARGV[1]) end
  return {'kept'}
end
for i = 1, 5 do redis.call('UNLINK', KEYS[i]) end
for i = 8, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('ZREM', KEYS[7], ARGV[1])
return {'evicted'}
