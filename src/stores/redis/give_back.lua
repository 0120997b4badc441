-- Gives units of a quota back.
--
-- KEYS[1]: the counter, as in the script that reserves.
-- ARGV: the start of the window that they were counted in, and how many, or "all" whatever the window.
local counter = redis.call('GET', KEYS[1])
if not counter then
  return 0
end
local start, finish, used = string.match(counter, '^(%S+) (%S+) (%d+)$')
if ARGV[2] == 'all' then
  used = 0
elseif tonumber(start) == tonumber(ARGV[1]) then
  used = math.max(used - ARGV[2], 0)
else
  -- That window is over.
  return 0
end
redis.call('SET', KEYS[1], string.format('%s %s %.0f', start, finish, used), 'KEEPTTL')
return 1
