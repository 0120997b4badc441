-- Counts one unit of a quota, unless the limit is reached.
--
-- KEYS[1]: the counter, "<start> <end> <used>": its window in milliseconds since 1970, and the units in it.
-- ARGV: start and end of the window that is asked for, the limit, and how long the counter is kept, in milliseconds.
-- Returns whether it was granted (1 or 0), the counter as it is now, and the server's time.
local start, finish, used = ARGV[1], ARGV[2], 0
local counter = redis.call('GET', KEYS[1])
if counter then
  local s, f, u = string.match(counter, '^(%S+) (%S+) (%d+)$')
  -- A counter never goes back to an earlier window.
  if tonumber(s) >= tonumber(start) then
    start, finish, used = s, f, tonumber(u)
  end
end
local granted = 0
if used < tonumber(ARGV[3]) then
  granted, used = 1, used + 1
end
counter = string.format('%s %s %.0f', start, finish, used)
if granted == 1 then
  redis.call('SET', KEYS[1], counter, 'PX', ARGV[4])
end
local time = redis.call('TIME')
return {granted, counter, time[1], time[2]}
