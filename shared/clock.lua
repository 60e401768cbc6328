-- Redis's own time, which is the only one that counts. This text is put before each script by scripts.py.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
