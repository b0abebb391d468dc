-- Pages of lists, each from where the last one ended, so that no list grows slower with its length.
-- `device_ids`: only these devices; null: any.

-- Devices in the order they were added.
-- name: devices
select d.id, d.name, coalesce(d.platform, 'whatsapp') as platform, d.jid, d.base_url, d.desired_state, d.state,
       d.reason_code, d.reason, d.state_since, d.next_attempt_at, d.last_online_at, d.created_at,
       case when d.held_until > now() then d.held_until end as held_until,
       case when d.held_until > now() then d.held_reason else '' end as held_reason,
       (select count(*) from outbox o where o.device_id = d.id and o.state = 'queued')
           + (select count(*) from outbox o where o.device_id = d.id and o.state in ('sending', 'in_doubt')) as waiting
from device d
where d.removed_at is null and d.id > %(after)s
  and (%(device_ids)s::bigint[] is null or d.id = any(%(device_ids)s))
  and (%(state)s::text is null or d.state = %(state)s)
  and (%(platform)s::text is null or coalesce(d.platform, 'whatsapp') = %(platform)s)
  and (%(part_of_name)s::text is null or strpos(lower(d.name), lower(%(part_of_name)s)) > 0)
order by d.id
limit %(limit)s;

-- Messages, newest first.
-- name: messages
select o.id, d.name as device, coalesce(d.platform, 'whatsapp') as platform, o.recipient, o.kind, o.body, o.media_name,
       o.state, o.reason_code, o.reason, o.priority, o.attempts, o.external_id, o.idempotency_key, o.not_before,
       o.expires_at, o.created_at, o.updated_at
from outbox o
join device d on d.id = o.device_id
where o.id < %(before)s
  and (%(state)s::text is null or o.state = %(state)s)
  and (%(recipient)s::text is null or o.recipient = %(recipient)s)
order by o.id desc
limit %(limit)s;

-- The same of some devices (those that were removed may have had the name before), each by its own index.
-- name: messages_of_devices
select o.id, d.name as device, coalesce(d.platform, 'whatsapp') as platform, o.recipient, o.kind, o.body, o.media_name,
       o.state, o.reason_code, o.reason, o.priority, o.attempts, o.external_id, o.idempotency_key, o.not_before,
       o.expires_at, o.created_at, o.updated_at
from device d
cross join lateral (
    select *
    from outbox
    where device_id = d.id and id < %(before)s
      and (%(state)s::text is null or state = %(state)s)
      and (%(recipient)s::text is null or recipient = %(recipient)s)
    order by id desc
    limit %(limit)s
) o
where (%(device_ids)s::bigint[] is null or d.id = any(%(device_ids)s))
  and (%(device)s::text is null or d.name = %(device)s)
order by o.id desc
limit %(limit)s;

-- Restarts, newest first.
-- name: restarts
select r.id, r.at, r.what, r.name, r.cause_code, r.cause, r.attempt, r.tried, r.outcome, r.seconds, r.request
from restart r
where r.id < %(before)s
  and (%(device_ids)s::bigint[] is null or r.device_id = any(%(device_ids)s))
  and (%(device)s::text is null or (r.what = 'device' and r.name = %(device)s))
  and (%(request)s::text is null or r.request = %(request)s)
order by r.id desc
limit %(limit)s;

-- Numbers that opted out, in the order of their digits.
-- name: opt_outs
select o.number, o.at, o.source, d.name as device, o.word
from opt_out o
left join device d on d.id = o.device_id
where o.number > %(after)s
order by o.number
limit %(limit)s;

-- What a device went through, newest first: its restarts and its states.
-- name: timeline
select * from (
    (select r.at, 'restart' as kind, r.cause_code as code, r.cause as words, r.tried, r.outcome, r.seconds
     from restart r
     where r.device_id = %(device_id)s
     order by r.id desc
     limit %(limit)s)
    union all
    (select e.at, e.body ->> 'state', e.body ->> 'code', e.body ->> 'reason', null, null, null
     from event e
     where e.device_id = %(device_id)s and e.kind = 'state'
     order by e.external_id desc
     limit %(limit)s)
) as happened
order by at desc
limit %(limit)s;
