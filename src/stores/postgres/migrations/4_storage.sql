-- The counters in which a record counts, by policy and key: two arrays of the same length, or null. An upload is followed
-- while `follow_at` is set. `events` is the sequence of its latest event.
alter table imgwire_gate.upload
    add column storage_policies text[],
    add column storage_keys text[],
    add column follow_at timestamptz,
    add column events bigint not null default 0;

-- Uploads of the last day are followed, even if they came before this.
update imgwire_gate.upload set follow_at = now()
where exists_now and state = 'open' and token is null and created_at > now() - interval '1 day';

create index upload_followed on imgwire_gate.upload (follow_at) where follow_at is not null and exists_now;

-- One row per counter: the sums over the records that count in it. The sums have no upper bound, because sizes are what
-- clients declare.
create table imgwire_gate.storage (
    policy text not null,
    key text not null,
    bytes numeric not null check (bytes >= 0),
    images bigint not null check (images >= 0),
    open bigint not null check (open >= 0),
    primary key (policy, key)
) with (fillfactor = 50);

-- What a record adds to each of its counters.
create function imgwire_gate.storage_of(upload imgwire_gate.upload)
returns table (policy text, key text, bytes numeric, images bigint, open bigint)
language sql immutable
as $$
    select policy, key, coalesce(upload.real_size, upload.size, 0)::numeric, 1::bigint,
           (upload.state = 'requested' or (upload.state = 'open' and upload.follow_at is not null))::integer::bigint
    from unnest(upload.storage_policies, upload.storage_keys) as counter (policy, key)
    where upload.state = 'requested' or upload.exists_now
$$;

-- Adds the difference that a change of a record makes to its counters. A change locks its record first, then its counters
-- in the order of their names, to avoid deadlocks. No change of counters has several records.
create function imgwire_gate.count_storage() returns trigger
language plpgsql
as $$
declare
    change record;
begin
    for change in
        select policy, key, sum(bytes) as bytes, sum(images) as images, sum(open) as open
        from (
            select * from imgwire_gate.storage_of(new)
            union all
            select policy, key, -bytes, -images, -open from imgwire_gate.storage_of(old)
        ) as difference
        group by policy, key
        having sum(bytes) <> 0 or sum(images) <> 0 or sum(open) <> 0
        order by policy, key
    loop
        insert into imgwire_gate.storage as counter (policy, key, bytes, images, open)
        values (change.policy, change.key, greatest(change.bytes, 0), greatest(change.images, 0), greatest(change.open, 0))
        on conflict (policy, key) do update
        set bytes = greatest(counter.bytes + change.bytes, 0),
            images = greatest(counter.images + change.images, 0),
            open = greatest(counter.open + change.open, 0);
        if change.images < 0 then
            delete from imgwire_gate.storage as counter
            where counter.policy = change.policy and counter.key = change.key and counter.images = 0;
        end if;
    end loop;
    return null;
end
$$;

-- The conditions are short, because every statement prepares them anew.
create trigger storage_added after insert on imgwire_gate.upload
    for each row when (new.storage_policies is not null)
    execute function imgwire_gate.count_storage();

create trigger storage_changed
    after update of state, exists_now, real_size, follow_at, storage_policies, storage_keys on imgwire_gate.upload
    for each row when (old.storage_policies is not null or new.storage_policies is not null)
    execute function imgwire_gate.count_storage();

create trigger storage_removed after delete on imgwire_gate.upload
    for each row when (old.storage_policies is not null)
    execute function imgwire_gate.count_storage();

-- Records an intent: $1 to $12 are the columns. $13 and $14 name its counters, and $15 to $17 are the most bytes, images
-- and open uploads that each may count, or null. Returns what the counters count without this upload, in the same order.
create function imgwire_gate.begin_upload(
    uuid, text, text, text, text, text, bigint, timestamptz, bytea, bytea, text, timestamptz,
    text[], text[], bigint[], bigint[], bigint[],
    out outcome text, out bytes bigint[], out images bigint[], out open bigint[]
)
language plpgsql
as $$
declare
    is_recorded boolean := false;
    is_full boolean := false;
    used imgwire_gate.storage;
begin
    -- The counters are compared before the upload is counted, so that a denial changes nothing, and after it, when no
    -- other upload can be counted meanwhile.
    loop
        bytes := '{}';
        images := '{}';
        open := '{}';
        for number in 1 .. coalesce(cardinality($13), 0) loop
            select * into used from imgwire_gate.storage where policy = $13[number] and key = $14[number];
            used.bytes := coalesce(used.bytes, 0) - case when is_recorded then coalesce($7, 0) else 0 end;
            used.images := coalesce(used.images, 0) - is_recorded::integer;
            used.open := coalesce(used.open, 0) - is_recorded::integer;
            is_full := is_full
                or coalesce(used.bytes + coalesce($7, 0) > $15[number], false)
                or coalesce(used.images >= $16[number], false)
                or coalesce(used.open >= $17[number], false);
            bytes := bytes || least(used.bytes, 9223372036854775807)::bigint;
            images := images || used.images;
            open := open || used.open;
        end loop;
        exit when is_full or is_recorded;

        insert into imgwire_gate.upload (
            id, subject, workspace, route, purpose, mime_type, size, created_at,
            slot, parameters, call, due_at, storage_policies, storage_keys, state, exists_now
        ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'requested', false)
        on conflict do nothing;
        is_recorded := found;
        exit when not is_recorded or $13 is null;
    end loop;
    if is_recorded and is_full then
        delete from imgwire_gate.upload where id = $1;
        is_recorded := false;
    end if;
    outcome := case
        when is_recorded then 'recorded'
        when is_full and not exists (select from imgwire_gate.upload where id = $1 or slot = $9) then 'full'
        else 'slot_taken'
    end;
end
$$;

-- One row per event that waits for its delivery. It outlives its record.
create table imgwire_gate.event (
    id uuid primary key,
    upload uuid not null,
    sequence bigint not null,
    kind text not null,
    at timestamptz not null,
    data text not null,
    due_at timestamptz not null,
    failures integer not null default 0
) with (fillfactor = 85);

create index event_due on imgwire_gate.event (due_at);
create index event_at on imgwire_gate.event (at);

-- One row: when images were read to follow uploads, and how many at a time, by all gates together.
create table imgwire_gate.upload_reads (
    only_row boolean primary key default true check (only_row),
    times timestamptz[] not null default '{}',
    numbers bigint[] not null default '{}'
);

insert into imgwire_gate.upload_reads default values;

-- Takes some of the $2 reads that are wanted at $1, if at most $3 may be in a period of $4. Gates come one after another.
create function imgwire_gate.take_reads(timestamptz, bigint, bigint, interval) returns bigint
language plpgsql
as $$
declare
    earlier imgwire_gate.upload_reads;
    taken bigint;
begin
    if $2 = 0 then
        return 0;
    end if;
    select * into earlier from imgwire_gate.upload_reads for update;
    -- The clocks of gates differ a little. A time that is far ahead was the mistake of a clock.
    select array_agg(at), array_agg(number), least($2, greatest($3 - coalesce(sum(number), 0), 0))
    into earlier.times, earlier.numbers, taken
    from unnest(earlier.times, earlier.numbers) as earlier (at, number)
    where at > $1 - $4 and at <= $1 + interval '1 minute';
    -- Reads within a small part of the period count as if they were at the same time, so that the row stays small.
    if taken > 0 then
        update imgwire_gate.upload_reads
        set (times, numbers) = (
            select array_agg(at), array_agg(number)
            from (
                select max(at) as at, sum(number)::bigint as number
                from unnest(earlier.times || $1, earlier.numbers || taken) as read (at, number)
                group by floor(extract(epoch from at) * 64 / extract(epoch from $4))
            ) as reads
        );
    end if;
    return taken;
end
$$;

-- One row per comparison of all records with Imgwire. `after` is the last record that was compared.
create table imgwire_gate.reconciliation (
    id uuid primary key,
    after uuid,
    taken_until timestamptz not null,
    done_at timestamptz,
    checked bigint not null,
    deleted bigint not null,
    corrected bigint not null,
    failed bigint not null
);

-- At most one is not done.
create unique index reconciliation_running on imgwire_gate.reconciliation ((done_at is null)) where done_at is null;

-- For roles that may only read and write the tables.
grant execute on all functions in schema imgwire_gate to public;
