-- What the circuit breaker's scripts share. This text is put before each of them by scripts.py.
--
-- KEYS 1 is breaker:{deployment}, a HASH; absent means closed, and no failure lately. Times are Redis's, in ms.
--   failures     consecutive failures, while closed
--   open_until   set: the breaker is open until then, and half-open from then on
--   probe_until  the lease of the one call that a half-open breaker has let through
--   away_until   the provider itself asked to be left alone until then (Retry-After)
--   generation   rises when the breaker opens, and with each probe. A call bears the one it was admitted in, and what
--                it reports is void in a later one

local KEPT_MS = 2 * 24 * 3600 * 1000 -- a day longer than any time above can lie ahead

local now = now_ms()

local function read()
  local names = {'failures', 'open_until', 'probe_until', 'away_until', 'generation'}
  local values, breaker = redis.call('HMGET', KEYS[1], unpack(names)), {}
  for i, name in ipairs(names) do breaker[name] = tonumber(values[i] or 0) end
  return breaker
end

local function write(...)
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], KEPT_MS)
end

-- A new generation, whose number rises even where the key was gone in between.
local function turn(breaker)
  breaker.generation = math.max(now, breaker.generation + 1)
  write('generation', breaker.generation)
end

-- {'held', until, now}, or {'admitted', generation}.
local function answer(breaker)
  local held_until = math.max(breaker.away_until, breaker.open_until, breaker.probe_until)
  if held_until > now then return {'held', held_until, now} end
  return {'admitted', breaker.generation}
end
