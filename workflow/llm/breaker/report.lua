-- report: what became of an admitted call.
-- ARGV 1 outcome (success, failure, refused, abandoned), 2 generation, 3 failures borne in a row, 4 open time (ms),
--      5 for how long the provider asked to be left alone (ms, 0)
-- Answers {admitted, generation} or {held, until (ms), now (ms)}: whether another call might go out now.
local outcome = ARGV[1]
local breaker = read()
if tonumber(ARGV[2]) == breaker.generation then
  if breaker.open_until > 0 then -- the probe's word
    if outcome == 'failure' then
      breaker.open_until, breaker.probe_until = now + tonumber(ARGV[4]), 0
      turn(breaker)
      write('open_until', breaker.open_until, 'probe_until', 0)
    elseif outcome == 'abandoned' then
      breaker.probe_until = 0
      write('probe_until', 0)
    else -- a refusal is an answer, too: the provider is there
      breaker.open_until, breaker.probe_until = 0, 0
      redis.call('HDEL', KEYS[1], 'open_until', 'probe_until', 'failures')
    end
  elseif outcome == 'failure' then
    if breaker.failures < tonumber(ARGV[3]) then
      write('failures', breaker.failures + 1)
    else
      breaker.open_until = now + tonumber(ARGV[4])
      turn(breaker)
      write('open_until', breaker.open_until)
    end
  elseif outcome == 'success' and breaker.failures > 0 then
    redis.call('HDEL', KEYS[1], 'failures')
  end
end
local away_until = now + tonumber(ARGV[5])
if away_until > math.max(now, breaker.away_until) then
  breaker.away_until = away_until
  write('away_until', away_until)
end
return answer(breaker)
