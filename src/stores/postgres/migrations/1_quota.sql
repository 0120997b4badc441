-- One row a counter. `granted` and `quota_limit` are what the last reservation was about: the statement that
-- reserves has no other place to hand them on.
do $$
begin
    if not exists (select from pg_catalog.pg_namespace where nspname = 'imgwire_gate') then
        create schema imgwire_gate;
    end if;
end
$$;

create table imgwire_gate.migration (
    version integer primary key,
    applied_at timestamptz not null default now()
);

create table imgwire_gate.quota (
    policy text not null,
    key text not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    used bigint not null check (used >= 0),
    granted bigint not null,
    quota_limit bigint not null,
    primary key (policy, key)
) with (fillfactor = 50);
