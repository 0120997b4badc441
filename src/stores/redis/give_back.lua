-- Gives units of a quota back.
--
-- KEYS[1]: the counter, as in reserve.lua.
-- ARGV: the start of their window, and how many units; or "all" for all units of any window.
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
  -- Their window is over.
  return 0
end
redis.call('SET', KEYS[1], struct.pack('<ddd', start, finish, used), 'KEEPTTL')
return 1
