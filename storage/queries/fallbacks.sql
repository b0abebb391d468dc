-- A device's fallbacks, in order.
-- name: of_device
select f.fallback_id, d.name
from fallback f join device d on d.id = f.fallback_id
where f.device_id = %(device_id)s and d.removed_at is null
order by f.position;

-- Whether any device has one.
-- name: any
select exists (select 1 from fallback) as found;

-- Replace a device's fallbacks.
-- name: clear
delete from fallback where device_id = %(device_id)s;

-- name: add
insert into fallback (device_id, position, fallback_id) values (%(device_id)s, %(position)s, %(fallback_id)s);

-- Queued messages whose route is down for longer than the patience, with why. A queued message was definitely not
-- taken: it was never tried, or each attempt is proven not to have left. The first of every lane come first, so that
-- a long lane that nobody can stand in for keeps no other from moving.
-- name: stranded
select o.id, d.id as device_id, o.recipient, o.kind, o.body, o.media_url, o.media_name, o.left_routes,
       d.name as device,
       case
           when d.state in ('logged_out', 'banned', 'outdated', 'conflict', 'needs_pairing') then d.reason
           when b.platform is not null then 'The breaker is open: ' || b.reason
           else 'It was tried ' || o.attempts || ' times: ' || o.reason
       end as why
from device d
left join lateral (
    select platform, reason from breaker
    where platform = d.platform and account in ('', d.name, d.base_url) and state = 'open' limit 1
) b on true
cross join lateral (
    select first.*, row_number() over (order by first.priority desc, first.id) as place
    from (
        select waiting.*
        from outbox waiting
        where waiting.device_id = d.id and waiting.state = 'queued' and waiting.not_before <= now()
          and (waiting.expires_at is null or waiting.expires_at > now())
          and exists (
              select 1 from fallback f
              where f.device_id = d.id and not f.fallback_id = any(waiting.left_routes)
          )
          and (
              (d.state in ('logged_out', 'banned', 'outdated', 'conflict', 'needs_pairing')
               and d.state_since < now() - make_interval(secs => %(patience)s))
              or b.platform is not null
              or (waiting.attempts >= %(attempts)s and d.held_until > now())
          )
        order by waiting.priority desc, waiting.id
        limit 200
    ) first
) o
where exists (select 1 from fallback f where f.device_id = d.id) and d.removed_at is null
  -- Said of the device alone, so that the lanes of routes that are up are not looked through.
  and (
      d.state in ('logged_out', 'banned', 'outdated', 'conflict', 'needs_pairing')
      or b.platform is not null or d.held_until > now()
  )
order by o.place, o.id
limit 200;

-- The devices among these that can send now, best first: the one the recipient was last reached from (people answer
-- to the number they know), then in the order of preference.
-- name: candidates
select d.id, d.name, d.platform
from fallback f
join device d on d.id = f.fallback_id
where f.device_id = %(device_id)s and d.removed_at is null and d.desired_state = 'running'
  and d.state in ('online', 'ready') and not d.id = any(%(left_routes)s::bigint[])
  and (d.held_until is null or d.held_until <= now())
  and not exists (select 1 from breaker b where b.platform = d.platform and b.account in ('', d.name, d.base_url))
order by (
    select max(o.id) from outbox o
    where o.device_id = d.id and o.recipient = %(recipient)s and o.state in ('sent', 'delivered', 'read')
) desc nulls last, f.position;

-- Move one message to another route, once, unless it was touched meanwhile.
-- name: move
with moved as (
    update outbox
    set device_id = %(to)s, left_routes = left_routes || device_id, attempts = 0, external_id = null,
        updated_at = now()
    where id = %(message_id)s and state = 'queued' and device_id = %(from)s
    returning id
)
insert into transition (message_id, state, reason_code, reason)
select id, 'queued', 'rerouted', %(reason)s from moved
returning message_id;
