-- What a dispatcher does for many lanes in one transaction.

-- The devices behind these lanes.
-- name: lanes
select id, name, base_url, credentials, proxy from device where id = any(%(device_ids)s) and removed_at is null;

-- Whom the head of each of these lanes goes to.
-- name: recipients
select lane.device_id, head.recipient
from unnest(%(device_ids)s::bigint[]) as lane (device_id)
cross join lateral (
    select o.recipient
    from outbox o
    where o.device_id = lane.device_id and o.state = 'queued' and o.not_before <= now()
      and (o.expires_at is null or o.expires_at > now())
    order by o.priority desc, o.id
    limit 1
) head;

-- Recent messages in doubt of these lanes, with the secret of each one's last attempt. In no order: those about which
-- the provider knows nothing must not keep it from being asked about the others.
-- name: doubtful
select o.id as message_id, o.device_id, o.recipient, o.external_id, a.id as attempt_id, a.secret
from outbox o
join lateral (select id, secret from attempt where message_id = o.id order by id desc limit 1) a on true
where o.device_id = any(%(device_ids)s) and o.state = 'in_doubt' and o.updated_at > now() - interval '1 day'
order by random()
limit 200;

-- Take the head of each lane, as `claim` in outbox.sql takes that of one. One row for each lane, with nulls when
-- nothing was taken; a lane that is `limited` by rules of its own is left to the statements that ask them.
-- name: claim
with lane as materialized (
    select d.id, d.name, d.base_url, d.credentials, d.proxy, wanted.secret,
           num_nonnulls(d.gap_seconds, d.jitter_seconds, d.per_hour, d.per_day) > 0 as limited,
           case
               when d.desired_state <> 'running' or d.removed_at is not null then 32767
               when d.held_until > now() then coalesce(d.held_below, 32767)
               else -32768
           end as lowest
    from unnest(%(device_ids)s::bigint[], %(secrets)s::bytea[]) as wanted (device_id, secret)
    join device d on d.id = wanted.device_id
), head as materialized (
    select first.id, first.recipient
    from lane
    cross join lateral (
        select o.id, o.recipient
        from outbox o
        where o.device_id = lane.id and o.state = 'queued' and o.not_before <= now()
          and (o.expires_at is null or o.expires_at > now()) and o.priority >= lane.lowest
        order by o.priority desc, o.id
        limit 1
        for update
    ) first
    where not lane.limited and not exists (select 1 from attempt served where served.secret = lane.secret)
), moved as (
    update outbox o
    set state = case when gone.number is null then 'sending' else 'cancelled' end,
        attempts = o.attempts + case when gone.number is null then 1 else 0 end,
        reason_code = case when gone.number is null then '' else 'opted_out' end,
        reason = case when gone.number is null then '' else 'Its recipient has opted out.' end,
        updated_at = now()
    from head
    left join opt_out gone on gone.number = head.recipient
    where o.id = head.id
    returning o.*
), tried as (
    insert into attempt (message_id, device_id, number, owner, secret)
    select moved.id, moved.device_id, moved.attempts, %(owner)s, lane.secret
    from moved join lane on lane.id = moved.device_id
    where moved.state = 'sending'
    returning id, message_id
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, state, case state when 'sending' then 'attempt' else reason_code end,
           case state when 'sending' then 'Attempt ' || attempts || '.' else reason end
    from moved
)
select lane.id as device_id, lane.name, lane.base_url, lane.credentials, lane.proxy, lane.secret, lane.limited,
       moved.id, moved.state, moved.attempts, moved.recipient, moved.kind, moved.body, moved.media_url,
       moved.media_name, tried.id as attempt_id,
       (
           select c.on_whatsapp
           from number_check c
           where c.number = moved.recipient
             and c.checked_at > now() - case when c.on_whatsapp then interval '30 days' else interval '1 day' end
       ) as on_whatsapp
from lane
left join moved on moved.device_id = lane.id
left join tried on tried.message_id = moved.id;

-- The claims that were made with these secrets and are still open.
-- name: claimed_with
select d.id as device_id, d.name, d.base_url, d.credentials, d.proxy, a.secret, false as limited,
       o.id, o.state, o.attempts, o.recipient, o.kind, o.body, o.media_url, o.media_name, a.id as attempt_id,
       null::boolean as on_whatsapp
from attempt a
join outbox o on o.id = a.message_id
join device d on d.id = a.device_id
where a.secret = any(%(secrets)s) and a.ended_at is null;

-- Record what came of attempts, each once: an attempt that has ended keeps its outcome, unless it ended in doubt.
-- name: record
with told as (
    select *
    from unnest(
        %(message_ids)s::bigint[], %(attempt_ids)s::bigint[], %(states)s::text[], %(codes)s::text[],
        %(reasons)s::text[], %(external_ids)s::text[]
    ) as t (message_id, attempt_id, state, code, reason, external_id)
), moved as (
    update outbox o
    set state = told.state, reason_code = told.code, reason = told.reason, updated_at = now(),
        external_id = coalesce(told.external_id, o.external_id)
    from told
    join attempt a on a.id = told.attempt_id
    where o.id = told.message_id
      and (
          (o.state = 'sending' and a.ended_at is null)
          or (
              o.state = 'in_doubt' and told.state in ('sent', 'failed')
              and a.id = (select max(latest.id) from attempt latest where latest.message_id = o.id)
          )
      )
    returning o.id, told.attempt_id, o.state, o.reason_code, o.reason
), closed as (
    update attempt a
    set ended_at = now(), outcome = moved.state, reason = moved.reason
    from moved
    where a.id = moved.attempt_id and a.ended_at is null
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, state, reason_code, reason from moved
)
select id from moved;

-- Let lanes wait.
-- name: hold
update device d
set held_until = now() + make_interval(secs => h.seconds), held_reason = h.reason, held_code = '', held_below = null
from unnest(%(device_ids)s::bigint[], %(seconds)s::double precision[], %(reasons)s::text[])
         as h (device_id, seconds, reason)
where d.id = h.device_id;
