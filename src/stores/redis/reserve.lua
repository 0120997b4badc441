-- Counts one unit of a quota, unless the limit is reached.
--
-- KEYS[1]: the counter, three doubles: start and end of its window, in milliseconds since 1970, and the units in it.
-- ARGV: start and end of the requested window, the limit, how long to keep the counter, in milliseconds, and 1 to
-- request the server's time.
-- Returns the units that are counted now, or 0 if the limit is reached. If the server's time is requested, or if the
-- counter's window is another one, returns the counter's window and the server's time, too.
local start, finish, used = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local is_other, is_moved = false, false
local counter = redis.call('GET', KEYS[1])
if counter then
  local s, f, u = struct.unpack('<ddd', counter)
  if f > start then
    used = u
    if s >= finish then
      -- The clock was set back. A counter never goes back to an earlier window.
      finish = f
    end
    start = math.max(s, start)
    is_other = start ~= tonumber(ARGV[1]) or finish ~= tonumber(ARGV[2])
    -- If the windows overlap, the setting of the windows was changed. The units count on until the end of the requested
    -- window.
    is_moved = start ~= s or finish ~= f
  end
end
local granted = 0
if used < tonumber(ARGV[3]) then
  granted = used + 1
  used = granted
end
-- A counter that is moved to a longer window must be kept longer, even if nothing is counted.
if granted > 0 or is_moved then
  -- If the counter's window ends later than the requested one, keep the counter longer by the difference.
  local kept = tonumber(ARGV[4]) + finish - tonumber(ARGV[2])
  redis.call('SET', KEYS[1], struct.pack('<ddd', start, finish, used), 'PX', kept)
end
if is_other or ARGV[5] == '1' then
  local time = redis.call('TIME')
  return {granted, start, finish, tonumber(time[1]), tonumber(time[2])}
end
return granted
