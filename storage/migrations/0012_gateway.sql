-- The HTTP API: who may use it, and events in an order in which none can be missed.

-- API keys. Only a hash is kept; a key has 256 random bits, so there is nothing that a slow hash would protect.
create table api_key (
    id             bigint generated always as identity primary key,
    public_id      text        not null unique,            -- the part of a key that may be shown
    name           text        not null default '',
    scope          text        not null check (scope in ('read', 'send', 'admin')),
    digest         bytea       not null,                   -- SHA-256 of the whole key
    device_ids     bigint[],                               -- null: every device
    per_minute     integer     check (per_minute >= 0),    -- null: the installation's setting holds; 0: any number
    created_at     timestamptz not null default now(),
    revoked_at     timestamptz
);

-- Who reads events by their ids alone misses one whose transaction ends later than that of a higher id. In the order of
-- transactions, up to the oldest one that is still under way, nothing can appear behind the reader's back.
-- A server that a backup is restored into counts its transactions from the beginning: `ahead` is added so that moments
-- go on from where they were (see keep_clock in queries/events.sql).
create table event_clock (
    single boolean primary key default true check (single),
    ahead  bigint  not null default 0
);
insert into event_clock default values;
create function event_moment() returns bigint language sql volatile
    as 'select pg_current_xact_id()::text::bigint + ahead from event_clock';
alter table event add column moment bigint not null default event_moment();
create index event_moment on event (moment, id);

-- A recipient's messages, newest first.
create index outbox_recipient on outbox (recipient, id);
