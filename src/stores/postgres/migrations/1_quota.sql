-- One row per counter. `granted` and `quota_limit` belong to the latest reservation: its statement returns them from
-- here, because `returning` only sees columns of the table.
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
