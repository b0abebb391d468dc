-- The dashboard: who may sign in, who is signed in, who tried in vain, and the counts behind its charts.

create table dashboard_user (
    id             bigint generated always as identity primary key,
    name           text        not null unique,            -- in lower case
    role           text        not null check (role in ('operator', 'viewer')),
    password_hash  text        not null,                   -- argon2id, with its parameters
    created_at     timestamptz not null default now()
);

-- A session is a random token in a cookie; here stands only its hash.
create table dashboard_session (
    token_hash  bytea       primary key,
    user_id     bigint      not null references dashboard_user on delete cascade,
    created_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now()
);
create index dashboard_session_user on dashboard_session (user_id);

-- Sign-ins that failed (or are being checked): the subject is the hash of a name or of an address.
create table sign_in_failure (
    id       bigint generated always as identity primary key,
    subject  bytea       not null,
    at       timestamptz not null default now()
);
create index sign_in_failure_subject on sign_in_failure (subject, at);
create index sign_in_failure_at on sign_in_failure (at);

-- The one-time code that lets the first user in: one at most, and only its hash.
create table first_sign_in (
    only_one    boolean     primary key default true check (only_one),
    code_hash   bytea       not null,
    expires_at  timestamptz not null,
    tries_left  integer     not null
);

-- What happened in each minute, counted once from the transitions and restarts, so that a chart never reads those.
create table traffic (
    minute      timestamptz primary key,
    sent        integer     not null default 0,
    delivered   integer     not null default 0,
    failed      integer     not null default 0,
    in_doubt    integer     not null default 0,
    reconnects  integer     not null default 0,            -- restarts of devices' sessions
    restarts    integer     not null default 0,            -- restarts of processes
    -- Times from acceptance to delivery by length: up to 1, 2, 5, 10, 30, 60, 300, 1800 seconds, and longer.
    delivery    integer[]   not null default '{0,0,0,0,0,0,0,0,0}'
);

-- How far they are counted: the last rows that were looked at.
create table traffic_counted (
    only_one    boolean primary key default true check (only_one),
    transition  bigint  not null default 0,
    restart     bigint  not null default 0
);
insert into traffic_counted default values;
