-- What the scripts about slots share. This text is put before each of them by scripts.py.
-- KEYS 1 slots (ZSET, run by when it got or confirmed its slot, in ms), 2 parked (ZSET, run by rank: the lowest is next)
-- Both belong to one workspace. Runs' records are on other slots of the cluster, so nothing here looks at them.

local AT_ONCE = 100 -- more than that are let in by the next call

-- Parked runs get the slots that are free. Answers them: run, rank in turn.
local function let_in(limit)
  local free = math.min(limit - redis.call('ZCARD', KEYS[1]), AT_ONCE)
  if free <= 0 then return {} end
  local runs = redis.call('ZPOPMIN', KEYS[2], free)
  for i = 1, #runs, 2 do redis.call('ZADD', KEYS[1], now_ms(), runs[i]) end
  return runs
end
