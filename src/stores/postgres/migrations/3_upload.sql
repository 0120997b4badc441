-- One row per upload: an intent while `call` is set, then the record of an image. A token has a row without an image. The
-- fill factor leaves room for what becomes of a row after it was written.
create table imgwire_gate.upload (
    id uuid primary key,
    subject text not null,
    workspace text,
    route text not null,
    purpose text,
    mime_type text,
    size bigint,
    created_at timestamptz not null,
    slot bytea,
    parameters bytea,
    call text,
    due_at timestamptz,
    image text,
    token text,
    real_mime_type text,
    real_size bigint,
    state text not null,
    exists_now boolean not null, -- the image is known and was not deleted
    deleted_at timestamptz
) with (fillfactor = 85);

create index upload_subject on imgwire_gate.upload (subject, workspace, exists_now, id);
create index upload_workspace on imgwire_gate.upload (workspace, exists_now, id) where workspace is not null;
create index upload_image on imgwire_gate.upload (image) where image is not null;
create index upload_token on imgwire_gate.upload (token) where token is not null;
create unique index upload_slot on imgwire_gate.upload (slot) where slot is not null;
create index upload_due on imgwire_gate.upload (due_at) where due_at is not null;
create index upload_deleted on imgwire_gate.upload (deleted_at) where deleted_at is not null;
create index upload_issued on imgwire_gate.upload (created_at) where token is not null and image is null;

-- One row per erasure of a person's images. It forgets the person once it is done.
create table imgwire_gate.erasure (
    id uuid primary key,
    subject text,
    until uuid not null,
    taken_until timestamptz not null,
    done_at timestamptz,
    deleted bigint not null,
    failed bigint not null
);

-- One row: the secret of keyed digests.
create table imgwire_gate.upload_secret (
    only_row boolean primary key default true check (only_row),
    secret bytea not null
);
