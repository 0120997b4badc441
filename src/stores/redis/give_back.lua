-- Gives units of a quota back.
--
-- KEYS[1]: the counter, as in the script that reserves.
-- ARGV: the start of the window that they were counted in, and how many, or "all" whatever the window.
local counter = redis.call('GET', KEYS[1])
if not counter then
  return 0
end
local start, finish, used = struct.unpack('<ddd', counter)
if ARGV[2] == 'all' then
  used = 0
elseif start == tonumber(ARGV[1]) then
  used = math.max(used - ARGV[2], 0)
else
  -- That window is over.
  return 0
end
redis.call('SET', KEYS[1], struct.pack('<ddd', start, finish, used), 'KEEPTTL')
return 1
