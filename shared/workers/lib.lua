-- What scripts about workers share. This text is put before each of them by registry.py.
-- All keys of workers share a slot, so that a script may use any of them.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
