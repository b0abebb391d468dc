-- What the map shows of each device: one narrow row each, for thousands, once a second for all who look.
-- name: fleet
select id, name, state, coalesce(platform, 'whatsapp') as platform
from device
where removed_at is null
order by id;

-- One page of the device list, after a name. What waits on each is counted up to a limit, on the page's devices alone.
-- name: device_page
select d.id, d.name, coalesce(d.platform, 'whatsapp') as platform, d.state, d.reason, d.state_since,
       d.held_until > now() as held,
       (
           select count(*)
           from (
               select 1 from outbox o
               where o.device_id = d.id and o.state in ('queued', 'sending', 'in_doubt') limit 1000
           ) as waits
       ) as waiting
from (
    select *
    from device
    where removed_at is null and name > %(after)s
      and (%(states)s::text[] is null or state = any(%(states)s))
      and (%(platform)s::text is null or coalesce(platform, 'whatsapp') = %(platform)s)
      and (%(search)s = '' or strpos(lower(name), %(search)s) > 0 or strpos(coalesce(jid, ''), %(search)s) > 0)
    order by name
    limit %(limit)s
) as d
order by d.name;

-- Devices that wait for a person, those that wait longest first.
-- name: attention
select * from device
where removed_at is null and (state = 'needs_pairing' or reason_code = any(%(codes)s))
order by (reason_code = 'new'), state_since
limit %(limit)s;

-- How much of one device's queue there is, counted up to a limit.
-- name: waiting_on
select count(*) as waiting
from (
    select 1 from outbox
    where device_id = %(device_id)s and state in ('queued', 'sending', 'in_doubt') limit 10000
) as waits;

-- A device's recent messages: what it tried last, and the head of what waits; an index leads to each, however many
-- messages there are.
-- name: recent_messages
select o.id, o.recipient, o.kind, o.body, o.state, o.reason, o.updated_at
from outbox o
where o.id in (
    (
        select tried.message_id
        from (
            select message_id, started_at from attempt
            where device_id = %(device_id)s
            order by started_at desc limit 50
        ) as tried
        group by tried.message_id
        order by max(tried.started_at) desc
        limit 12
    )
    union
    (
        select id from outbox
        where device_id = %(device_id)s and state = 'queued'
        order by priority desc, id limit 12
    )
)
order by o.id desc;

-- One page of messages, newest first, below an id. It looks through so many ids at most: what is rare must not cost a
-- walk through all there ever were.
-- name: message_page
with looked_at as (
    select o.id, o.device_id, o.recipient, o.kind, o.body, o.state, o.reason, o.created_at, o.updated_at
    from outbox o
    where o.id < %(before)s and o.id >= %(before)s - %(depth)s
      and (%(device_id)s::bigint is null or o.device_id = %(device_id)s)
      and (%(state)s::text is null or o.state = %(state)s)
      and (%(recipient)s::text is null or o.recipient = %(recipient)s)
    order by o.id desc
    limit %(limit)s
)
select l.*, d.name as device, d.removed_at is not null as device_removed
from looked_at l join device d on d.id = l.device_id
order by l.id desc;

-- Where the newest page begins, and the oldest ends.
-- name: message_bounds
select coalesce((select id from outbox order by id desc limit 1), 0) + 1 as newest,
       coalesce((select id from outbox order by id limit 1), 0) as oldest;

-- Messages in doubt, oldest first: those wait for an answer.
-- name: doubts
select o.id, o.recipient, o.kind, o.body, o.state, o.reason, o.created_at, o.updated_at, o.attempts, o.external_id,
       d.name as device, coalesce(d.platform, 'whatsapp') as platform, d.removed_at is not null as device_removed
from outbox o join device d on d.id = o.device_id
where o.state = 'in_doubt' and o.id > %(after)s
order by o.id
limit %(limit)s;

-- How many are in doubt, counted up to a limit.
-- name: doubt_count
select count(*) as doubts from (select 1 from outbox where state = 'in_doubt' limit 1000) as waits;

-- The platforms' devices: how many, how many of them paused or held back.
-- name: platform_devices
select platform, count(*) as devices,
       count(*) filter (where state = 'paused') as paused,
       count(*) filter (where held_until > now()) as held
from device
where removed_at is null and platform is not null
group by platform;

-- Lanes that wait, and why.
-- name: held_lanes
select name, coalesce(platform, 'whatsapp') as platform, held_until, held_reason
from device
where removed_at is null and held_until > now()
order by held_until desc
limit %(limit)s;
