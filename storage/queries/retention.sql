-- The right to remove history, for this transaction: of several hosts, one at a time does.
-- name: take_turn
select pg_try_advisory_xact_lock(%(key)s) as taken;

-- Each statement below looks at one batch of rows after an id, removes what of it is old enough, and tells how many that
-- were, the last id it looked at, and whether what follows is too young.

-- Finished messages with all that belongs to them. What is unfinished or in doubt stays, however old it is, and what is
-- being changed at this moment stays until the next round.
-- name: remove_messages
with looked as materialized (
    select id, created_at from outbox where id > %(after)s order by id limit %(batch)s
), old as materialized (
    select o.id, o.device_id, o.external_id
    from outbox o join looked on looked.id = o.id
    where o.state = any(%(final_states)s::text[]) and o.updated_at < now() - make_interval(days => %(days)s)
    for update of o skip locked
), names as (
    delete from message_name n using old where n.device_id = old.device_id and n.external_id = old.external_id
), attempts as (
    delete from attempt a using old where a.message_id = old.id
), stories as (
    delete from transition t using old where t.message_id = old.id
), gone as (
    delete from outbox o using old where o.id = old.id returning o.id
)
select (select count(*) from gone) as removed, max(id) as last,
       coalesce(min(created_at) >= now() - make_interval(days => %(days)s), true) as finished
from looked;

-- Received messages, receipts and state changes.
-- name: remove_events
with looked as materialized (
    select id, at from event where id > %(after)s order by id limit %(batch)s
), gone as (
    delete from event e using looked
    where e.id = looked.id and looked.at < now() - make_interval(days => %(days)s)
    returning e.id
)
select (select count(*) from gone) as removed, max(id) as last,
       coalesce(min(at) >= now() - make_interval(days => %(days)s), true) as finished
from looked;

-- Restarts and refreshes.
-- name: remove_restarts
with looked as materialized (
    select id, at from restart where id > %(after)s order by id limit %(batch)s
), gone as (
    delete from restart r using looked
    where r.id = looked.id and looked.at < now() - make_interval(days => %(days)s)
    returning r.id
)
select (select count(*) from gone) as removed, max(id) as last,
       coalesce(min(at) >= now() - make_interval(days => %(days)s), true) as finished
from looked;

-- What WhatsApp said about numbers so long ago that it is asked again anyway.
-- name: remove_number_checks
with old as materialized (
    select number from number_check
    where checked_at < now() - greatest(interval '30 days', make_interval(days => %(days)s))
    limit %(batch)s
), gone as (
    delete from number_check c using old where c.number = old.number returning c.number
)
select (select count(*) from gone) as removed, null::bigint as last, count(*) < %(batch)s as finished
from old;
