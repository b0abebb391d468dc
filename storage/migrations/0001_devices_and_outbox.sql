-- Devices: one row each, WhatsApp companions and platform accounts alike.
create table device (
    id               bigint generated always as identity primary key,
    name             text        not null,
    platform         text,                                 -- null: a WhatsApp companion of our own
    jid              text,                                 -- whatsmeow's companion, user:device@s.whatsapp.net
    lid              text,
    base_url         text,                                 -- platform devices: the account's API server
    credentials      bytea,                                -- platform devices: sealed with the home's key
    proxy            bytea,                                -- sealed, since proxy URLs carry passwords
    desired_state    text        not null default 'running' check (desired_state in ('running', 'paused')),
    state            text        not null,
    reason_code      text        not null default '',
    reason           text        not null default '',
    state_since      timestamptz not null default now(),
    next_attempt_at  timestamptz,                          -- when the supervisor tries again
    held_until       timestamptz,                          -- the lane waits (throttled, account disconnected)
    held_reason      text        not null default '',
    pairing_qr       text,                                 -- while a pairing is open
    pairing_code     text,
    last_online_at   timestamptz,
    created_at       timestamptz not null default now(),
    removed_at       timestamptz
);
create unique index device_name on device (name) where removed_at is null;
create unique index device_jid on device (jid) where removed_at is null;

-- The outbox: one row a message, from acceptance to its one honest end.
create table outbox (
    id               bigint generated always as identity primary key,
    device_id        bigint      not null references device,
    recipient        text        not null,                 -- E.164 digits without +, or a group JID
    kind             text        not null check (kind in ('text', 'image', 'document', 'video', 'audio')),
    body             text        not null,                 -- the text, or the caption
    media_url        text        not null default '',
    media_name       text        not null default '',
    idempotency_key  text,
    content_digest   bytea       not null,                 -- tells a repeated key with other content
    state            text        not null default 'queued' check (state in
        ('queued', 'sending', 'sent', 'delivered', 'read', 'failed', 'expired', 'cancelled', 'in_doubt')),
    reason_code      text        not null default '',
    reason           text        not null default '',
    priority         smallint    not null default 0,
    not_before       timestamptz not null default now(),
    expires_at       timestamptz,
    attempts         integer     not null default 0,
    external_id      text,                                 -- WhatsApp's or the platform's id of the message
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now()
) with (fillfactor = 85);
create unique index outbox_idempotency_key on outbox (idempotency_key) where idempotency_key is not null;
create index outbox_lane on outbox (device_id, priority desc, id) where state = 'queued';
create index outbox_unfinished on outbox (device_id, id) where state in ('sending', 'in_doubt');
create index outbox_external_id on outbox (device_id, external_id) where external_id is not null;

-- Each attempt to send a message. The secret is put into the WhatsApp message; finding it in whatsmeow's
-- tables after a crash proves which message id the attempt had, finding none proves that it never left.
create table attempt (
    id           bigint generated always as identity primary key,
    message_id   bigint      not null references outbox,
    number       integer     not null,
    owner        text        not null,                     -- the process instance that made it
    secret       bytea       not null,
    started_at   timestamptz not null default now(),
    ended_at     timestamptz,
    outcome      text,
    reason       text        not null default ''
);
create index attempt_message on attempt (message_id);
create unique index attempt_secret on attempt (secret);

-- The story of each message: every state it was in, since when and why.
create table transition (
    id           bigint generated always as identity primary key,
    message_id   bigint      not null references outbox,
    at           timestamptz not null default clock_timestamp(),
    state        text        not null,
    reason_code  text        not null default '',
    reason       text        not null default ''
);
create index transition_message on transition (message_id);

-- Every restart and refresh: what fell, why, what was tried, how it ended and how long it took.
create table restart (
    id           bigint generated always as identity primary key,
    at           timestamptz not null default clock_timestamp(),
    what         text        not null,                     -- device, shard, router, platform, fleet, postgres
    name         text        not null,
    device_id    bigint,
    cause_code   text        not null,
    cause        text        not null,
    attempt      integer     not null default 1,
    tried        text        not null,
    outcome      text        not null,
    seconds      double precision not null,
    request      text        not null default ''           -- the command that asked for it, if one did
);
create index restart_at on restart (at);
create index restart_device on restart (device_id, id) where device_id is not null;
create index restart_request on restart (request) where request <> '';

-- What happened: messages received, receipts, state changes; written before it is handed on.
create table event (
    id           bigint generated always as identity primary key,
    at           timestamptz not null default clock_timestamp(),
    device_id    bigint      not null references device,
    kind         text        not null,
    external_id  text        not null,                     -- makes repeated deliveries one row
    body         jsonb       not null,
    unique (device_id, kind, external_id)
);
