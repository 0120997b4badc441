-- GCRA: counts an attempt, or only looks at what would come of one.
--
-- KEYS[1]: the cell, two doubles: the theoretical arrival time and the emission interval, in microseconds of the
-- server's clock.
-- ARGV: the emission interval, the burst, and 1 to count or 0 to look.
-- Returns in how many microseconds everything will have come back: after an attempt that is let in, or, negative,
-- beside one that is not.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local back_in = 0
local cell = redis.call('GET', KEYS[1])
if cell then
  local arrival, was = struct.unpack('<dd', cell)
  back_in = math.max(arrival - now, 0)
  -- Another rate than before: what is used up stays used up.
  if was ~= interval then
    back_in = math.ceil(back_in * interval / was)
  end
  -- Nobody waits for more than all, whatever the clock did.
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
