-- free: slots are given back. A run that has asked again since its slot was looked at keeps it.
-- KEYS 1 slots, 2 parked
-- ARGV 1 limit, then run and the ms seen ('' for whatever it is) in turn
-- Answers {runs that have got a slot and are to be told of (run, rank in turn), now}.
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' or redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return {let_in(tonumber(ARGV[1])), now_ms()}
