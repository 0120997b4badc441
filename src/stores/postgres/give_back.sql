-- Gives units back, unless their window is over. Locks rows in the order of their keys, to avoid deadlocks.
with given as (
    select policy, key, window_start, sum(units)::bigint as units
    from unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
        as asked (policy, key, window_start, units)
    group by policy, key, window_start
), locked as (
    select counter.policy, counter.key, given.units
    from imgwire_gate.quota as counter
    join given using (policy, key, window_start)
    order by counter.policy, counter.key
    for update of counter
)
update imgwire_gate.quota as counter
set used = greatest(counter.used - locked.units, 0)
from locked
where counter.policy = locked.policy and counter.key = locked.key
