-- Record events; one that is known already is not recorded twice.
-- name: record
insert into event (device_id, kind, external_id, body)
select device_id, kind, external_id, body
from unnest(%(device_ids)s::bigint[], %(kinds)s::text[], %(external_ids)s::text[], %(bodies)s::jsonb[])
     as e (device_id, kind, external_id, body)
on conflict do nothing
returning external_id;

-- Events after an id, oldest first.
-- name: after
select e.id, e.at, d.name as device, e.kind, e.body
from event e join device d on d.id = e.device_id
where e.id > %(after)s and (%(device)s::text is null or d.name = %(device)s)
order by e.id limit %(limit)s;

-- The newest events, oldest of them first.
-- name: latest
select * from (
    select e.id, e.at, d.name as device, e.kind, e.body
    from event e join device d on d.id = e.device_id
    where (%(device)s::text is null or d.name = %(device)s)
    order by e.id desc limit %(limit)s
) as newest order by id;

-- Events after a place, in the order of their transactions, up to the oldest that is still under way: nothing can appear
-- before a place that was read.
-- name: stream
select e.moment, e.id, e.at, e.device_id, d.name as device, e.kind, e.body
from event e join device d on d.id = e.device_id
where (e.moment, e.id) > (%(moment)s, %(id)s)
  and e.moment < (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ahead from event_clock)
  and (%(device_ids)s::bigint[] is null or e.device_id = any(%(device_ids)s))
  and (%(device)s::text is null or d.name = %(device)s)
  and (%(kind)s::text is null or e.kind = %(kind)s)
order by e.moment, e.id
limit %(limit)s;

-- The newest events in that order, the oldest of them first.
-- name: stream_end
select * from (
    select e.moment, e.id, e.at, e.device_id, d.name as device, e.kind, e.body
    from event e join device d on d.id = e.device_id
    where e.moment < (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ahead from event_clock)
      and (%(device_ids)s::bigint[] is null or e.device_id = any(%(device_ids)s))
      and (%(device)s::text is null or d.name = %(device)s)
      and (%(kind)s::text is null or e.kind = %(kind)s)
    order by e.moment desc, e.id desc
    limit %(limit)s
) as newest
order by moment, id;

-- Let moments go on from the newest event's when the server's transactions have lower numbers: a backup was restored.
-- name: keep_clock
update event_clock
set ahead = newest.moment
from (select max(moment) as moment from event) as newest
where newest.moment >= pg_current_xact_id()::text::bigint + ahead
returning ahead;
