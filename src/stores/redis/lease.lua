-- Takes a lease that is free, or renews the holder's own. The server ends it.
--
-- KEYS[1]: the lease; its value is the holder.
-- ARGV: the holder, and for how many milliseconds.
-- Returns 1 if the holder has the lease now, otherwise 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
