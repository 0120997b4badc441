-- GCRA: counts an attempt, or only returns what the result would be.
--
-- KEYS[1]: the cell, two doubles: the theoretical arrival time and the emission interval, in microseconds of the
-- server's clock.
-- ARGV: the emission interval, the burst, and 1 to count or 0 for a dry run.
-- Returns the microseconds until the full burst is available again, negated if the attempt is denied.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local back_in = 0
local cell = redis.call('GET', KEYS[1])
if cell then
  local arrival, was = struct.unpack('<dd', cell)
  back_in = math.max(arrival - now, 0)
  -- After a change of the rate, the used part of the burst stays used.
  if was ~= interval then
    back_in = math.ceil(back_in * interval / was)
  end
  -- Limits the wait if the clock was set back.
  back_in = math.min(back_in, interval * burst)
end
if back_in > interval * (burst - 1) then
  return -back_in
end
back_in = back_in + interval
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], struct.pack('<dd', now + back_in, interval), 'PX', math.ceil(back_in / 1000))
end
return back_in
