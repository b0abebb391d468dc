-- Requests that were carried out, with their answers: one whose answer was lost is asked again and done once.
create table handled_request (
    request  text        primary key,
    answer   text        not null,
    at       timestamptz not null default now()
);

-- Queued messages that have an end, so that those whose time ran out are found at once, whatever their device does.
create index outbox_expiring on outbox (expires_at) where state = 'queued' and expires_at is not null;
