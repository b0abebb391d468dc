-- Traces of messages from the HTTP request on. A span is made of each transition, which ends what its message was in
-- before; so what is exported is a stream, and costs what is new.

-- Note where messages belong that were just accepted, and the requests that brought them.
-- name: note
with requests as (
    insert into traced_request (span_id, owner, trace_id, parent_id, name, began_at)
    select distinct on (span_id) span_id, %(owner)s, trace_id, parent_id, name, began_at
    from unnest(
        %(request_spans)s::bytea[], %(request_traces)s::bytea[], %(callers)s::bytea[], %(names)s::text[],
        %(began)s::timestamptz[]
    ) as r (span_id, trace_id, parent_id, name, began_at)
    on conflict do nothing
)
insert into traced_message (message_id, owner, trace_id, parent_id, taken_at)
select message_id, %(owner)s, trace_id, parent_id, %(taken_at)s
from unnest(%(messages)s::bigint[], %(traces)s::bytea[], %(parents)s::bytea[]) as m (message_id, trace_id, parent_id);

-- Begin with what comes from now on. One who was away for longer than traces are kept begins anew.
-- name: begin
insert into trace_cursor as c (owner, exported, candidate)
select %(owner)s, newest.id, newest.id
from (select coalesce(max(id), 0) as id from transition) as newest
on conflict (owner) do update set exported = excluded.exported, candidate = excluded.candidate
where (select at from transition where id > c.exported order by id limit 1) < now() - make_interval(secs => %(kept)s);

-- How far the transitions were exported, and whether those up to the candidate can be read. A horizon that this server
-- has not reached yet is that of another one, from a backup: there is nothing to wait for.
-- name: cursor
select exported, candidate,
       (
           pg_snapshot_xmin(pg_current_snapshot()) >= horizon or pg_snapshot_xmax(pg_current_snapshot()) < horizon
       ) and chosen_at < now() - make_interval(secs => %(settle)s)
           as settled
from trace_cursor
where owner = %(owner)s;

-- Choose how far they will be exported next, if there is anything new.
-- name: choose
update trace_cursor
set candidate = newest.id, horizon = pg_snapshot_xmax(pg_current_snapshot()), chosen_at = now()
from (select max(id) as id from transition) as newest
where owner = %(owner)s and newest.id > candidate;

-- The transitions of traced messages in a range of ids, each with what it ended: the state before, since when, and (of
-- a send) the attempt. The n-th time that a message was `sending` was its n-th attempt.
-- name: steps
select t.id, t.message_id, t.at, t.state, t.reason_code, m.trace_id, m.parent_id, m.taken_at,
       before.state as former, before.at as former_at,
       coalesce(a.device, d.name) as device, coalesce(a.platform, d.platform, 'whatsapp') as platform, a.number as attempt
from transition t
join traced_message m on m.message_id = t.message_id and m.owner = %(owner)s
join outbox o on o.id = t.message_id
join device d on d.id = o.device_id
left join lateral (
    select p.id, p.state, p.at from transition p where p.message_id = t.message_id and p.id < t.id order by p.id desc limit 1
) before on true
left join lateral (
    select tried.number, by.name as device, coalesce(by.platform, 'whatsapp') as platform
    from attempt tried join device by on by.id = tried.device_id
    where before.state = 'sending' and tried.message_id = t.message_id
    order by tried.id
    offset (
        select count(*) from transition s where s.message_id = t.message_id and s.state = 'sending' and s.id < before.id
    )
    limit 1
) a on true
where t.id > %(first)s and t.id <= %(last)s
order by t.id;

-- Requests whose answer nobody here knows: they came to a gateway before this one (by the clock of both), or took longer
-- than any request takes.
-- name: unanswered
select span_id, trace_id, parent_id, name, began_at, recorded_at
from traced_request
where owner = %(owner)s and (began_at < %(since)s or recorded_at < now() - make_interval(secs => %(seconds)s))
limit 500;

-- The transitions are exported this far; what reached its end with one of them has nothing more to tell.
-- name: exported
with ended as (
    delete from traced_message m
    using transition t
    where t.id > %(first)s and t.id <= %(last)s and m.message_id = t.message_id and m.owner = %(owner)s
      and t.state in ('delivered', 'read', 'failed', 'expired', 'cancelled')
)
update trace_cursor set exported = %(last)s where owner = %(owner)s;

-- name: requests_exported
delete from traced_request where span_id = any(%(span_ids)s::bytea[]);

-- Forget what ended so long ago and was not exported, whoever's it is; what is unfinished stays.
-- name: forget_messages
delete from traced_message m
where m.taken_at < now() - make_interval(secs => %(kept)s)
  and not exists (
      select 1 from outbox o
      where o.id = m.message_id
        and (
            (o.state || '') in ('queued', 'sending', 'in_doubt')
            or o.updated_at >= now() - make_interval(secs => %(kept)s)
        )
  );

-- name: forget_requests
delete from traced_request where recorded_at < now() - make_interval(secs => %(kept)s);
