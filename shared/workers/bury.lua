-- bury: removes workers whose lease has ended, and their cards. Those who remain are alive, whatever their lease says.
-- KEYS 1 workers
-- Answers the names removed.
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms())
for _, name in ipairs(dead) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('DEL', 'worker:{workers}:' .. name)
end
return dead
