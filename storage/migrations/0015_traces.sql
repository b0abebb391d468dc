-- Traces: where messages and the HTTP requests that brought them belong, until their spans have been exported. Written
-- only when traces_endpoint is set. No foreign keys: they would lock the message's row, and what is left over is removed
-- after a day.
create table traced_message (
    message_id   bigint      primary key,
    owner        text        not null,                     -- the installation whose gateway exports it
    trace_id     bytea       not null,
    parent_id    bytea,                                    -- the span it was handed over by; null: the trace begins here
    taken_at     timestamptz not null                      -- when the router began with it
);
create table traced_request (
    span_id      bytea       primary key,
    owner        text        not null,
    trace_id     bytea       not null,
    parent_id    bytea,                                    -- the caller's span
    name         text        not null,
    began_at     timestamptz not null,
    recorded_at  timestamptz not null default clock_timestamp()
);

-- How far each installation has exported the transitions. Those up to the candidate can be read once every transaction
-- that was under way when it was chosen is over: until then one of them may still add a row with a lower id.
create table trace_cursor (
    owner        text        primary key,
    exported     bigint      not null,
    candidate    bigint      not null,
    horizon      xid8        not null default pg_snapshot_xmax(pg_current_snapshot()),
    chosen_at    timestamptz not null default now()
);
