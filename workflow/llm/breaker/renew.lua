-- renew: a probe under way keeps its lease.
-- ARGV 1 generation, 2 the probe's lease (ms)
-- Answers 1, or 0 where the call is the probe no more.
local breaker = read()
if breaker.open_until == 0 or tonumber(ARGV[1]) ~= breaker.generation then return 0 end
write('probe_until', now + tonumber(ARGV[2]))
return 1
