-- bury: removes workers whose lease has ended. Those who remain are alive, whatever their lease says.
-- KEYS 1 workers
-- Answers the names removed.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
if #dead > 0 then redis.call('ZREM', KEYS[1], unpack(dead)) end
return dead
