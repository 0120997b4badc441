-- Counts one unit of a quota, unless the limit is reached.
--
-- KEYS[1]: the counter, three doubles: start and end of its window, in milliseconds since 1970, and the units in it.
-- ARGV: start and end of the window that is asked for, the limit, how long the counter is kept, in milliseconds, and
-- 1 if the server's time is wanted.
-- Returns the units that are counted now, or 0 if the limit is reached; with the counter's window and the server's time,
-- where that is wanted or the window is another one than was asked for.
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
  -- A later window is kept longer by as much as it ends later.
  local kept = tonumber(ARGV[4]) + finish - tonumber(ARGV[2])
  redis.call('SET', KEYS[1], struct.pack('<ddd', start, finish, granted), 'PX', kept)
end
if is_other or ARGV[5] == '1' then
  local time = redis.call('TIME')
  return {granted, start, finish, tonumber(time[1]), tonumber(time[2])}
end
return granted
