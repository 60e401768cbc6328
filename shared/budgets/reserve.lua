-- reserve: sets aside what a model call may cost at most, in every budget that has a limit, or in none.
-- KEYS see lib.lua
-- ARGV 1 step id, 2 epoch, 3 number of the call in its attempt, 4 input tokens, 5 output tokens wanted, 6 the least that is
--      worth a call, 7 price of an input token, 8 of an output token (micro-USD), 9 cost and 10 tokens that the run has
--      spent at least; then of each budget: period, most cost, tokens, turns, ms ('' where there is no limit)
-- Answers {granted, output tokens}: as many as wanted; or {granted, fewer, why}: the budget ends with them, and `why` is
--      as in a refusal; {busy}: there is enough, but calls under way hold it; {refused, why}, which is `BUDGET WHAT LIMIT
--      SPENT` (1-4; cost, tokens, turns or ms); or {stale}: the attempt is over, or the call a late repetition.
--      A granted call that is asked for again gets the same answer.
local step, epoch, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local input, wanted, least = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local price_in, price_out = tonumber(ARGV[7]), tonumber(ARGV[8])

local over, last = unpack(redis.call('HMGET', KEYS[1], '.over', '.last'))
local last_epoch, last_number, output, why = string.match(last or '-1 0 0 ', '^(%S+) (%S+) (%S+) (.*)$')
last_epoch, last_number = tonumber(last_epoch), tonumber(last_number)
if epoch == last_epoch and number == last_number then return {'granted', tonumber(output), why} end
if epoch <= tonumber(over or -1) or epoch < last_epoch or (epoch == last_epoch and number < last_number) then
  return {'stale'}
end

local limits, counted = {}, ''
for i = 1, 4 do
  local at = 11 + 5 * (i - 1)
  local limit = {cost = tonumber(ARGV[at + 1]), tokens = tonumber(ARGV[at + 2]), turns = tonumber(ARGV[at + 3]),
    ms = tonumber(ARGV[at + 4])}
  limits[i] = next(limit) and limit
  counted = counted .. (limits[i] and 1 or 0)
  if limits[i] then budget(i, ARGV[at]) end
end

settle_in_full(epoch - 1)
local held = redis.call('HGET', KEYS[1], step)
if held then settle(step, reservation(held), reservation(held)) end
count_time(epoch)
redis.call('HSET', KEYS[1], '.seen', string.format('%d %.0f %s', epoch, now_ms(), counted))
if limits[1] then
  budgets[1].cost = math.max(budgets[1].cost, tonumber(ARGV[9]))
  budgets[1].tokens = math.max(budgets[1].tokens, tonumber(ARGV[10]))
end

-- What each budget leaves, not minding calls under way: they may turn out cheaper than they could be.
local function most_output(b, limit)
  if limit.turns and b.turns >= limit.turns then return -1, 'turns' end
  if limit.ms and b.ms >= limit.ms then return -1, 'ms' end
  local most, what = wanted, nil
  if limit.tokens and limit.tokens - b.tokens - input < most then most, what = limit.tokens - b.tokens - input, 'tokens' end
  if limit.cost then
    local left = limit.cost - b.cost - input * price_in
    local affordable = price_out > 0 and math.floor(left / price_out + 1e-9) or (left >= 0 and wanted or -1)
    if b.cost >= limit.cost then affordable = -1 end
    if affordable < most then most, what = affordable, 'cost' end
  end
  return most, what
end

output, why = wanted, ''
for i = 1, 4 do
  if limits[i] then
    local most, what = most_output(budgets[i], limits[i])
    if most < output then
      output, why = most, string.format('%d %s %.0f %.0f', i, what, limits[i][what], budgets[i][what])
    end
  end
end
if output < least then
  save()
  return {'refused', why}
end

local amount = {cost = math.max(0, math.ceil(input * price_in + output * price_out - 1e-6)), tokens = input + output, turns = 1}
for i = 1, 4 do
  for _, what in ipairs(AMOUNTS) do
    local b, limit = budgets[i], limits[i] and limits[i][what]
    if limit and b[what] + b['held_' .. what] + amount[what] > limit then
      save()
      return {'busy'}
    end
  end
end

each(counted, function(b)
  for _, what in ipairs(AMOUNTS) do b['held_' .. what] = b['held_' .. what] + amount[what] end
end)
redis.call('HSET', KEYS[1], step, string.format('%d %d %s %.0f %.0f', epoch, number, counted, amount.cost, amount.tokens),
  '.last', string.format('%d %d %.0f %s', epoch, number, output, why))
save()
return {'granted', output, why}
