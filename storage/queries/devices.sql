-- Add a device; the unique name makes a second one fail.
-- name: add
insert into device (name, platform, base_url, credentials, proxy, state, reason_code, reason, jid, lid, linked_at,
                    gap_seconds, jitter_seconds, per_hour, per_day)
values (%(name)s, %(platform)s, %(base_url)s, %(credentials)s, %(proxy)s, %(state)s, %(code)s, %(reason)s,
        %(jid)s, %(lid)s, %(linked_at)s, %(gap_seconds)s, %(jitter_seconds)s, %(per_hour)s, %(per_day)s)
returning id;

-- Every device that was not removed.
-- name: all
select * from device where removed_at is null order by id;

-- What kind each device is: all that is needed to place them, for thousands, again and again.
-- name: platforms
select id, platform from device where removed_at is null order by id;

-- The devices whose state has one of these reasons.
-- name: with_reasons
select * from device where removed_at is null and reason_code = any(%(codes)s) order by id;

-- These devices.
-- name: by_ids
select * from device where id = any(%(ids)s) and removed_at is null;

-- One device by name.
-- name: by_name
select * from device where name = %(name)s and removed_at is null;

-- One device by id.
-- name: by_id
select * from device where id = %(id)s and removed_at is null;

-- The lanes of the devices of these names.
-- name: lanes_by_name
select name, id, platform from device where name = any(%(names)s) and removed_at is null;

-- The states of devices (each at most once), with the reasons in words and code, and the events that tell of the changes;
-- the rows as they are now. state_since moves only when the state does. One statement: it needs no transaction around it.
-- name: set_states
with given as (
    select * from unnest(%(ids)s::bigint[], %(states)s::text[], %(codes)s::text[], %(reasons)s::text[],
                         %(next_attempts)s::timestamptz[], %(external_ids)s::text[], %(bodies)s::jsonb[])
        as g (id, state, code, reason, next_attempt_at, external_id, body)
),
changed as (
    update device d
    set state = g.state, reason_code = g.code, reason = g.reason, next_attempt_at = g.next_attempt_at,
        state_since = case when d.state = g.state then d.state_since else now() end,
        last_online_at = case when g.state = 'online' then now() else d.last_online_at end,
        pairing_qr = case when g.state = 'pairing' then d.pairing_qr end,
        pairing_code = case when g.state = 'pairing' then d.pairing_code end
    from given g
    where d.id = g.id
    returning d.*, g.external_id, g.body
),
told as (
    insert into event (device_id, kind, external_id, body)
    select id, 'state', external_id, body from changed where external_id is not null
    on conflict do nothing
)
select * from changed;

-- What to show while a pairing is open.
-- name: set_pairing
update device set pairing_qr = %(qr)s, pairing_code = coalesce(%(code)s, pairing_code) where id = %(id)s;

-- Bind a device to the companion that the phone linked: one row, one statement, never guessed.
-- name: bind
update device set jid = %(jid)s, lid = %(lid)s, linked_at = now() where id = %(id)s;

-- A logged-out device's companion is gone for good.
-- name: unbind
update device set jid = null, lid = null where id = %(id)s and jid = %(jid)s;

-- What the operator wants of a device.
-- name: set_desired_state
update device set desired_state = %(desired_state)s where id = %(id)s;

-- A platform device's state follows what the operator wants.
-- name: set_platform_state
update device
set state = %(state)s, reason_code = %(code)s, reason = %(reason)s,
    state_since = case when state = %(state)s then state_since else now() end
where id = %(id)s;

-- Remove a device; its messages keep their history.
-- name: remove
update device set removed_at = now(), credentials = null, proxy = null, jid = null, state = 'removed',
    reason_code = 'removed', reason = 'Removed by the operator.'
where id = %(id)s;

-- Devices by state.
-- name: counts
select platform, state, count(*) as devices from device where removed_at is null group by platform, state;

-- How many linked devices are to be online on this host, and how many had their first try since the fleet started. A row that
-- nobody has written since then tells of the run before.
-- name: coming_up
select count(*) as total,
       count(*) filter (
           where state <> 'connecting'
             and greatest(state_since, last_online_at) >= now() - make_interval(secs => %(seconds)s)
       ) as tried
from device
where removed_at is null and platform is null and jid is not null and desired_state = 'running'
  and state in ('online', 'connecting', 'refreshing', 'reconnecting')
  and not exists (select from lease where device_id = id and holder <> %(holder)s and expires_at > now());

-- Messages waiting on each device, and those in doubt (in two parts, each of which an index holds; history is not looked
-- at).
-- name: backlog
select device_id, count(*) filter (where state <> 'in_doubt') as waiting,
       min(created_at) filter (where state <> 'in_doubt') as oldest,
       count(*) filter (where state = 'in_doubt') as in_doubt
from (
    select device_id, created_at, state from outbox where state = 'queued'
    union all
    select device_id, created_at, state from outbox where state in ('sending', 'in_doubt')
) as unfinished
group by device_id;
