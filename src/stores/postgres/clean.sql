-- Deletes the counters of a page, in the order of their keys, whose windows are long over by both the server's and the
-- gate's clock. Skips counters that a request has locked.
with page as (
    select policy, key from imgwire_gate.quota
    where (policy, key) > ($1, $2)
    order by policy, key
    limit $3
), old as (
    select counter.policy, counter.key
    from imgwire_gate.quota as counter
    join page using (policy, key)
    where counter.window_end + (counter.window_end - counter.window_start) + make_interval(secs => $4)
        < least(clock_timestamp(), $5)
    for update of counter skip locked
), deleted as (
    delete from imgwire_gate.quota as counter
    using old
    where counter.policy = old.policy and counter.key = old.key
)
select policy, key, (select count(*) from page) from page
order by policy desc, key desc
limit 1
