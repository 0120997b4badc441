-- Returns which of these counters another transaction has locked, without waiting.
with asked as (
    select * from unnest($1::text[], $2::text[]) as asked (policy, key)
), free as (
    select counter.policy, counter.key
    from imgwire_gate.quota as counter
    join asked using (policy, key)
    for update of counter skip locked
)
select policy, key
from imgwire_gate.quota
join asked using (policy, key)
where (policy, key) not in (select policy, key from free)
