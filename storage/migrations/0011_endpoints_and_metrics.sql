-- Webhooks out: where others want to be told what happens, and what each is to be told.

-- Removed endpoints are deleted; what they were still to be told goes with them, bit by bit.
create table endpoint (
    id               bigint generated always as identity primary key,
    url              text        not null,
    description      text        not null default '',
    events           text[]      not null,                 -- kinds as message.sent, families as message.*, or *
    device_id        bigint      references device,        -- null: of every device
    secret           bytea       not null,                 -- sealed with the home's key
    enabled          boolean     not null default true,
    disabled_reason  text        not null default '',
    created_at       timestamptz not null default now()
);

-- One row for each event and endpoint that wants it, written in the transaction of the event itself: none is missed,
-- and none made up, whatever dies. A lane (an endpoint's events of one device; 0: of none) goes in the order of its ids.
-- No foreign keys: they would lock the endpoint's row in every transaction that sends a message.
create table endpoint_delivery (
    id            bigint generated always as identity primary key,
    endpoint_id   bigint      not null,
    lane          bigint      not null,
    event_id      uuid        not null,                    -- the same for every endpoint and every attempt
    type          text        not null,
    body          jsonb       not null,
    state         text        not null default 'pending' check (state in ('pending', 'delivered', 'dead')),
    attempts      integer     not null default 0,
    created_at    timestamptz not null default now(),
    next_at       timestamptz not null default now(),
    retry_until   timestamptz not null default now() + interval '3 days',
    leased_by     text,                                    -- who delivers it now, and until when that may be believed
    leased_until  timestamptz,
    tried_at      timestamptz,                             -- the last attempt, and what came of it
    status        integer,
    answer        text        not null default '',
    problem       text        not null default ''
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
create index endpoint_delivery_lane on endpoint_delivery (endpoint_id, lane, id) where state = 'pending';
create index endpoint_delivery_dead on endpoint_delivery (endpoint_id, id) where state = 'dead';
create index endpoint_delivery_newest on endpoint_delivery (endpoint_id, id);
create index endpoint_delivery_over on endpoint_delivery (state, tried_at) where state <> 'pending';

-- Whether an endpoint asked for a kind of event.
create function endpoint_wants(events text[], type text) returns boolean language sql immutable as $$
    select events && array['*', split_part(type, '.', 1) || '.*', type]
$$;

-- Messages: every state they come into.
create function tell_of_transitions() returns trigger language plpgsql as $$
begin
    if not exists (select from endpoint where enabled) then
        return null;
    end if;
    insert into endpoint_delivery (endpoint_id, lane, event_id, type, body)
    with named as materialized (
        select t.*, gen_random_uuid() as event_id from fresh t
    )
    select e.id, o.device_id, t.event_id, 'message.' || t.state,
           jsonb_build_object(
               'type', 'message.' || t.state, 'timestamp', t.at,
               'data', jsonb_build_object(
                   'id', o.id, 'device', d.name, 'platform', coalesce(d.platform, 'whatsapp'), 'to', o.recipient,
                   'kind', o.kind, 'state', t.state, 'reason_code', t.reason_code, 'reason', t.reason,
                   'external_id', o.external_id, 'idempotency_key', o.idempotency_key
               )
           )
    from named t
    join outbox o on o.id = t.message_id
    join device d on d.id = o.device_id
    join endpoint e on e.enabled and (e.device_id is null or e.device_id = o.device_id)
        and endpoint_wants(e.events, 'message.' || t.state)
    order by t.id, e.id;
    return null;
end $$;
create trigger endpoints after insert on transition
    referencing new table as fresh for each statement execute function tell_of_transitions();

-- What people write, and who opts out. Receipts are told as the states that messages come into.
create function tell_of_events() returns trigger language plpgsql as $$
begin
    if not exists (select from endpoint where enabled) then
        return null;
    end if;
    insert into endpoint_delivery (endpoint_id, lane, event_id, type, body)
    with named as materialized (
        select v.*, gen_random_uuid() as event_id,
               case v.kind when 'message' then 'message.received' else 'recipient.opted_out' end as type
        from fresh v
        where v.kind in ('message', 'opt_out')
    )
    select e.id, v.device_id, v.event_id, v.type,
           jsonb_build_object(
               'type', v.type, 'timestamp', v.at,
               'data', v.body || jsonb_build_object('device', d.name, 'platform', coalesce(d.platform, 'whatsapp'))
           )
    from named v
    join device d on d.id = v.device_id
    join endpoint e on e.enabled and (e.device_id is null or e.device_id = v.device_id)
        and endpoint_wants(e.events, v.type)
    order by v.id, e.id;
    return null;
end $$;
create trigger endpoints after insert on event
    referencing new table as fresh for each statement execute function tell_of_events();

-- Devices: every state they come into.
create function tell_of_device() returns trigger language plpgsql as $$
begin
    insert into endpoint_delivery (endpoint_id, lane, event_id, type, body)
    select e.id, new.id, named.event_id, 'device.' || new.state,
           jsonb_build_object(
               'type', 'device.' || new.state, 'timestamp', clock_timestamp(),
               'data', jsonb_build_object(
                   'device', new.name, 'platform', coalesce(new.platform, 'whatsapp'), 'state', new.state,
                   'former_state', case when tg_op = 'UPDATE' then old.state end,
                   'reason_code', new.reason_code, 'reason', new.reason, 'next_attempt_at', new.next_attempt_at
               )
           )
    from (select gen_random_uuid() as event_id) as named
    join endpoint e on e.enabled and (e.device_id is null or e.device_id = new.id)
        and endpoint_wants(e.events, 'device.' || new.state);
    return null;
end $$;
create trigger endpoints_added after insert on device for each row execute function tell_of_device();
create trigger endpoints_changed after update of state on device
    for each row when (old.state is distinct from new.state) execute function tell_of_device();

-- Restarts and refreshes.
create function tell_of_restarts() returns trigger language plpgsql as $$
begin
    if not exists (select from endpoint where enabled) then
        return null;
    end if;
    insert into endpoint_delivery (endpoint_id, lane, event_id, type, body)
    with named as materialized (
        select r.*, gen_random_uuid() as event_id from fresh r
    )
    select e.id, coalesce(r.device_id, 0), r.event_id, 'restart.' || r.what,
           jsonb_build_object(
               'type', 'restart.' || r.what, 'timestamp', r.at,
               'data', jsonb_build_object(
                   'what', r.what, 'name', r.name, 'cause_code', r.cause_code, 'cause', r.cause,
                   'attempt', r.attempt, 'tried', r.tried, 'outcome', r.outcome, 'seconds', r.seconds
               )
           )
    from named r
    join endpoint e on e.enabled and (e.device_id is null or e.device_id = r.device_id)
        and endpoint_wants(e.events, 'restart.' || r.what)
    order by r.id, e.id;
    return null;
end $$;
create trigger endpoints after insert on restart
    referencing new table as fresh for each statement execute function tell_of_restarts();

-- Counters for the metrics. What is written down already is summed here bit by bit, so that reading them costs what is
-- new and not what ever was.
create table metric_total (
    metric    text             not null,
    platform  text             not null,
    label     text             not null,
    value     double precision not null,
    primary key (metric, platform, label)
) with (fillfactor = 50);

-- How far each table is summed. Rows up to the candidate can be summed once every transaction that was under way when it
-- was chosen is over: until then one of them may still add a row with a lower id.
create table metric_cursor (
    source     text        primary key,
    counted    bigint      not null,
    candidate  bigint      not null,
    horizon    xid8        not null default pg_current_xact_id(),
    chosen_at  timestamptz not null default now()
);
insert into metric_cursor (source, counted, candidate)
select 'transition', coalesce(max(id), 0), coalesce(max(id), 0) from transition
union all
select 'restart', coalesce(max(id), 0), coalesce(max(id), 0) from restart;
