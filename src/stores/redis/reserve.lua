-- Counts one unit of a quota, unless the limit is reached.
--
-- KEYS[1]: the counter, three doubles: start and end of its window, in milliseconds since 1970, and the units in it.
-- ARGV: start and end of the requested window, the limit, how long to keep the counter, in milliseconds, and 1 to
-- request the server's time.
-- Returns the units that are counted now, or 0 if the limit is reached. If the server's time is requested, or if the
-- counter's window is another one, returns the counter's window and the server's time, too.
local start, finish, used = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local is_other = false
local counter = redis.call('GET', KEYS[1])
if counter then
  local s, f, u = struct.unpack('<ddd', counter)
  -- A counter never goes back to an earlier window.
  if s >= start then
    is_other = s ~= start
    start, finish, used = s, f, u
  end
end
local granted = 0
if used < tonumber(ARGV[3]) then
  granted = used + 1
  -- If the counter's window ends later than the requested one, keep the counter longer by the difference.
  local kept = tonumber(ARGV[4]) + finish - tonumber(ARGV[2])
  redis.call('SET', KEYS[1], struct.pack('<ddd', start, finish, granted), 'PX', kept)
end
if is_other or ARGV[5] == '1' then
  local time = redis.call('TIME')
  return {granted, start, finish, tonumber(time[1]), tonumber(time[2])}
end
return granted
