-- Counts units of quotas, unless their limits are reached. One upsert for all reservations of a batch, in the order of
-- their keys, to avoid deadlocks between batches of several gates.
insert into imgwire_gate.quota as counter
    (policy, key, window_start, window_end, used, granted, quota_limit)
select policy, key, window_start, window_end, least(wanted, quota_limit), least(wanted, quota_limit), quota_limit
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::bigint[])
    as asked (policy, key, window_start, window_end, wanted, quota_limit)
order by policy, key
on conflict (policy, key) do update set
    -- If the counter's window is over, it starts at zero. If the windows overlap, the setting of the windows was changed,
    -- and the units count on in the requested window. If the requested window is earlier, the clock was set back, and the
    -- counter stays in its window.
    granted = case when counter.window_end <= excluded.window_start
        then excluded.granted
        else least(excluded.granted, greatest(excluded.quota_limit - counter.used, 0)) end,
    used = case when counter.window_end <= excluded.window_start
        then excluded.granted
        else counter.used + least(excluded.granted, greatest(excluded.quota_limit - counter.used, 0)) end,
    window_end = case when counter.window_start < excluded.window_end
        then excluded.window_end
        else counter.window_end end,
    window_start = greatest(excluded.window_start, counter.window_start),
    quota_limit = excluded.quota_limit
returning policy, key, window_start, window_end, used, granted, clock_timestamp()
