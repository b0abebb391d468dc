-- What the metrics are read from. Times are sorted into buckets by their upper bounds; bucket n lies below the (n+1)th.

-- Messages by what became of them, and how long they took, among these transitions.
-- name: of_transitions
with told as materialized (
    select coalesce(d.platform, 'whatsapp') as platform,
           case
               when t.state <> 'queued' then t.state
               when t.reason_code = 'accepted' then 'accepted'
               else 'queued_again'
           end as outcome,
           greatest(extract(epoch from t.at - greatest(o.created_at, o.not_before))::double precision, 0) as seconds
    from transition t
    join outbox o on o.id = t.message_id
    join device d on d.id = o.device_id
    where t.id > %(first)s and t.id <= %(last)s
), timed as (
    select platform, outcome, seconds from told where outcome in ('sent', 'delivered')
)
select 'messages' as metric, platform, outcome as label, count(*)::double precision as value
from told
group by platform, outcome
union all
select 'seconds_to_' || outcome, platform,
       width_bucket(seconds, %(bounds)s::double precision[])::text, count(*)::double precision
from timed
group by 1, 2, 3
union all
select 'seconds_to_' || outcome || '_sum', platform, '', sum(seconds)
from timed
group by 1, 2;

-- Restarts by what was restarted and why, among these.
-- name: of_restarts
select 'restarts' as metric, what as platform, cause_code as label, count(*)::double precision as value
from restart
where id > %(first)s and id <= %(last)s
group by what, cause_code;

-- How far a table is summed, for who sums on; no row: somebody else does. A horizon that this server has not reached
-- yet is that of another one, from a backup: there is nothing to wait for.
-- name: take_cursor
select counted, candidate,
       (
           pg_snapshot_xmin(pg_current_snapshot()) >= horizon or pg_snapshot_xmax(pg_current_snapshot()) < horizon
       ) and chosen_at < now() - make_interval(secs => %(settle)s)
           as settled
from metric_cursor
where source = %(source)s
for update skip locked;

-- Add to the sums.
-- name: add
insert into metric_total (metric, platform, label, value)
select * from unnest(%(metrics)s::text[], %(platforms)s::text[], %(labels)s::text[], %(values)s::double precision[])
on conflict (metric, platform, label) do update set value = metric_total.value + excluded.value;

-- A table is summed this far.
-- name: counted
update metric_cursor set counted = %(counted)s where source = %(source)s;

-- Choose how far it will be summed next.
-- name: choose_transition
update metric_cursor
set candidate = greatest(candidate, (select coalesce(max(id), 0) from transition)),
    horizon = pg_snapshot_xmax(pg_current_snapshot()), chosen_at = now()
where source = 'transition';

-- name: choose_restart
update metric_cursor
set candidate = greatest(candidate, (select coalesce(max(id), 0) from restart)),
    horizon = pg_snapshot_xmax(pg_current_snapshot()), chosen_at = now()
where source = 'restart';

-- Let all that follows in the transaction see the same.
-- name: one_snapshot
set transaction isolation level repeatable read;

-- The sums. Read with what is not summed yet in one snapshot (see storage/metrics.py).
-- name: totals
select metric, platform, label, value from metric_total;

-- How far each table is summed.
-- name: cursors
select source, counted from metric_cursor;

-- Messages that are unfinished, and the oldest of them that could go; counted to a million of each state.
-- name: outbox
select 'queued' as state, count(*) as messages, min(at) as oldest
from (
    select case when not_before <= now() then created_at end as at
    from outbox where state = 'queued' limit 1000000
) as queued
union all
select state, count(*), min(updated_at)
from (
    select state, updated_at from outbox where state in ('sending', 'in_doubt') limit 1000000
) as unfinished
group by state;

-- Breakers that are not closed: of whole providers, and of accounts.
-- name: breakers
select platform, case account when '' then 'provider' else 'account' end as scope, state, count(*) as breakers
from breaker
group by 1, 2, 3;

-- Connections to ours and to these databases, and how many the server takes.
-- name: connections
select datname as database, coalesce(state, 'unknown') as state, count(*) as connections
from pg_stat_activity
where backend_type = 'client backend' and (datname = current_database() or datname = any(%(databases)s))
group by 1, 2;

-- name: connection_limit
select current_setting('max_connections')::integer as connections;
