-- One row per piece of work that only one gate does at a time.
create table imgwire_gate.lease (
    name text primary key,
    holder text not null,
    held_until timestamptz not null
);
