-- admit: may a call go out? The first one after the open time may, as the probe; no other until it has reported, or
-- its lease has ended.
-- ARGV 1 the probe's lease (ms)
-- Answers {admitted, generation}, {probe, generation}, or {held, until (ms), now (ms)}.
local breaker = read()
local answered = answer(breaker)
if answered[1] == 'held' or breaker.open_until == 0 then return answered end
turn(breaker)
write('probe_until', now + tonumber(ARGV[1]))
return {'probe', breaker.generation}
