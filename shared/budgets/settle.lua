-- settle: a call is over, and what it really took is spent in place of what it had reserved.
-- KEYS see lib.lua
-- ARGV 1 step id, 2 epoch, 3 number of the call in its attempt, 4 cost (micro-USD), 5 tokens, 6 turns; each '' where
--      nobody knows: then it is what was reserved
-- Answers {settled} or {gone}: there is no such reservation (any more), and nothing changes.
local step, epoch, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local text = redis.call('HGET', KEYS[1], step)
local held = text and reservation(text)
if not held or held.epoch ~= epoch or held.number ~= number then return {'gone'} end
settle(step, held, {
  cost = math.max(0, tonumber(ARGV[4]) or held.cost),
  tokens = math.max(0, tonumber(ARGV[5]) or held.tokens),
  turns = math.max(0, tonumber(ARGV[6]) or held.turns),
})
count_time(epoch)
save()
return {'settled'}
