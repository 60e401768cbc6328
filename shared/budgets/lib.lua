-- What the budget scripts share. This text is put before each of them by scripts.py.
--
-- Conventions: as in shared/threads/lib.lua. All keys of a workspace's budgets share a hash tag, so that one script sees
-- all budgets that a call counts in. KEYS are the same for all scripts:
-- KEYS 1 held, 2 run, 3 thread, 4 key, 5 workspace
--
-- A budget (2-5) is a HASH: period; window (of the period) in which cost (micro-USD), tokens, turns (model calls) and ms
-- (run time) were spent; held_cost, held_tokens, held_turns: what calls under way have reserved. A budget without a limit
-- is not kept.
-- held (1) is a HASH: a step's id -> `EPOCH NUMBER BUDGETS COST TOKENS`, the reservation of the call that it makes. BUDGETS
-- is a digit for each budget: 1 if the call counts in it. Besides:
--   .last  `EPOCH NUMBER OUTPUT WHY`: the last reservation that was granted, and the answer when it is asked for again
--   .over  attempts up to this epoch are over
--   .seen  `EPOCH MS BUDGETS`: until when the run time of an attempt is counted, and where

local AMOUNTS = {'cost', 'tokens', 'turns'}
local FIELDS = {'period', 'window', 'cost', 'tokens', 'turns', 'ms', 'held_cost', 'held_tokens', 'held_turns'}
-- Seconds without use after which a count is forgotten. A run's journal knows what it has spent (see reserve).
local KEPT = {40 * 86400, 40 * 86400, 400 * 86400, 400 * 86400, 400 * 86400}

-- Names the day or the month (UTC) that it is. Lua has no calendar here; the days are Howard Hinnant's civil_from_days.
local function window_of(period, ms)
  local days = math.floor(ms / 86400000)
  if period == 'day' then return 'day ' .. days end
  if period ~= 'month' then return 'total' end
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('month %d-%02d', yoe + era * 400 + (month <= 2 and 1 or 0), month)
end

local budgets = {}

-- Budget 1-4 as it stands now. In a new window nothing is spent yet; what is held stays held.
local function budget(i, period)
  if budgets[i] then return budgets[i] end
  local values, b = redis.call('HMGET', KEYS[i + 1], unpack(FIELDS)), {}
  for n, field in ipairs(FIELDS) do b[field] = n > 2 and tonumber(values[n] or 0) or values[n] end
  b.period = period or b.period or 'total'
  local window = window_of(b.period, now_ms())
  if b.window ~= window then b.window, b.cost, b.tokens, b.turns, b.ms = window, 0, 0, 0, 0 end
  budgets[i] = b
  return b
end

local function each(counted, change)
  for i = 1, 4 do
    if string.sub(counted, i, i) == '1' then change(budget(i)) end
  end
end

-- Writes what `budget` gave out and the caller changed.
local function save()
  for i, b in pairs(budgets) do
    local pairs_ = {}
    for n, field in ipairs(FIELDS) do
      pairs_[#pairs_ + 1] = field
      pairs_[#pairs_ + 1] = n <= 2 and b[field] or string.format('%.0f', b[field])
    end
    redis.call('HSET', KEYS[i + 1], unpack(pairs_))
    if i >= 3 and b.period == 'total' then redis.call('PERSIST', KEYS[i + 1]) else redis.call('EXPIRE', KEYS[i + 1], KEPT[i + 1]) end
  end
  redis.call('EXPIRE', KEYS[1], KEPT[1])
end

local function reservation(text)
  local epoch, number, counted, cost, tokens = string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {epoch = tonumber(epoch), number = tonumber(number), counted = counted,
    cost = tonumber(cost), tokens = tonumber(tokens), turns = 1}
end

-- A reservation gives way to what was really spent.
local function settle(step, held, spent)
  each(held.counted, function(b)
    for _, amount in ipairs(AMOUNTS) do
      b['held_' .. amount] = math.max(0, b['held_' .. amount] - held[amount])
      b[amount] = b[amount] + spent[amount]
    end
  end)
  redis.call('HDEL', KEYS[1], step)
end

-- Nobody knows what the calls of attempts up to this epoch have cost: as much as they could.
local function settle_in_full(epoch)
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) ~= '.' then
      local held = reservation(all[i + 1])
      if held.epoch <= epoch then settle(all[i], held, held) end
    end
  end
end

-- Counts the run time since the attempt was last seen.
local function count_time(epoch)
  local seen, ms, counted = string.match(redis.call('HGET', KEYS[1], '.seen') or '', '^(%d+) (%d+) (%d+)$')
  if not seen or tonumber(seen) ~= epoch then return nil end
  local now = now_ms()
  each(counted, function(b) b.ms = b.ms + math.max(0, now - tonumber(ms)) end)
  redis.call('HSET', KEYS[1], '.seen', string.format('%d %.0f %s', epoch, now, counted))
  return now
end
