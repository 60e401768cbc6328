-- alive: workers whose lease goes on. A dead one stays in the ZSET until a sweeper buries it.
-- KEYS 1 workers
-- Answers their names.
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms(), '+inf')
