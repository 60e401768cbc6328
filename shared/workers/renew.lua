-- renew: a worker's lease goes on. One that was buried stays dead: its runs may already be another's.
-- KEYS 1 workers (ZSET, name by lease end in ms)
-- ARGV 1 name, 2 lease (ms), 3 'new' to register
-- Answers 1, or 0 when the lease is gone.
if ARGV[3] == 'new' then
  redis.call('PERSIST', 'worker:{workers}:' .. ARGV[1]) -- its card lasts until its burial
elseif not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
return 1
