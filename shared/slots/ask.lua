-- ask: runs want a slot. Each gets one, keeps the one it has, or is parked.
-- KEYS 1 slots, 2 parked, 3 checked (STRING that expires: somebody looks for slots to be freed)
-- ARGV 1 limit, 2 check again after (ms), then run, rank, and 1 if it only ends (then it needs no slot), in turn
-- Answers {runs that have a slot and are to be told of (run, rank in turn), runs whose slot may be stale (run, ms in
--      turn), now}. Who asked and is not among the first is parked.
local limit, pause, now, runs = tonumber(ARGV[1]), tonumber(ARGV[2]), now_ms(), {}
local asking = 0
for i = 3, #ARGV, 3 do
  local has_one = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if has_one then redis.call('ZADD', KEYS[1], now, ARGV[i]) end
  if has_one or ARGV[i + 2] == '1' then
    redis.call('ZREM', KEYS[2], ARGV[i])
    runs[#runs + 1], runs[#runs + 2] = ARGV[i], ARGV[i + 1]
  else
    redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i])
    asking = asking + 1
  end
end
local new = asking > 0 and let_in(limit) or {}
for i = 1, #new do runs[#runs + 1] = new[i] end
if #new >= 2 * asking or not redis.call('SET', KEYS[3], 1, 'NX', 'PX', pause) then return {runs, {}, now} end
return {runs, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - pause, 'WITHSCORES'), now}
