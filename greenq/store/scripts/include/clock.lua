-- Seconds since the epoch by Redis' own clock, whole and with its fraction.
local function clock()
  local t = redis.call('TIME')
  local seconds = tonumber(t[1])
  return seconds, seconds + tonumber(t[2]) / 1e6
end
