-- Accept messages, all in one statement. Not written are those whose key is known (the first message's id and digest
-- are asked for then), whose device was removed, or whose recipient opted out; the last two are told by position.
-- name: accept
with wanted as (
    select *
    from unnest(
        %(device_ids)s::bigint[], %(recipients)s::text[], %(kinds)s::text[], %(bodies)s::text[],
        %(media_urls)s::text[], %(media_names)s::text[], %(keys)s::text[], %(digests)s::bytea[],
        %(priorities)s::smallint[], %(not_before)s::timestamptz[], %(expires_at)s::timestamptz[]
    ) with ordinality as w (device_id, recipient, kind, body, media_url, media_name, idempotency_key,
                            content_digest, priority, not_before, expires_at, position)
), judged as materialized (
    select w.*, d.id is not null as stands, o.number is not null as opted_out
    from wanted w
    left join device d on d.id = w.device_id and d.removed_at is null
    left join opt_out o on o.number = w.recipient
), inserted as (
    insert into outbox (device_id, recipient, kind, body, media_url, media_name, idempotency_key,
                        content_digest, priority, not_before, expires_at)
    select device_id, recipient, kind, body, media_url, media_name, idempotency_key,
           content_digest, priority, coalesce(not_before, now()), expires_at
    from judged
    where stands and not opted_out
    order by position
    on conflict (idempotency_key) where idempotency_key is not null do nothing
    returning id, idempotency_key
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, 'queued', 'accepted', 'Accepted by the router.' from inserted
)
select id, idempotency_key, null::bigint as position, null::boolean as stands from inserted
union all
select null, null, position, stands from judged where not (stands and not opted_out);

-- The messages that already hold these keys.
-- name: by_keys
select idempotency_key, id, content_digest from outbox where idempotency_key = any(%(keys)s);

-- Which of these lanes have a message that may go now: one index probe a lane, whatever the backlog. (Asked with
-- `exists`, the planner may read every queued message instead.)
-- name: lanes_with_work
select d.id
from unnest(%(device_ids)s::bigint[]) as wanted (id)
join device d on d.id = wanted.id
cross join lateral (
    select 1
    from outbox o
    where o.device_id = d.id and o.state = 'queued' and o.not_before <= now()
      and o.priority >= case when d.held_until > now() then coalesce(d.held_below, 32767) else -32768 end
    order by o.priority desc, o.id
    limit 1
) head
where d.desired_state = 'running';

-- Take the head of one lane: highest priority, then oldest. It is `sending` before the outside world is touched.
-- A second claimer waits for the first instead of skipping its row: the lane's order would be lost. A lane that was
-- held or paused while it is worked through stops at once.
-- One row for the lane, with nulls when nothing was taken: it holds, or `limited` says that its own limits must be
-- asked first (unless they were: `paced`). A secret that has served claims nothing again. A head whose recipient opted
-- out meanwhile is cancelled instead. The update does not ask for the state again: the head is locked in it, and asking
-- could cost a look at the whole backlog.
-- name: claim
with lane as materialized (
    select num_nonnulls(gap_seconds, jitter_seconds, per_hour, per_day) > 0 as limited,
           case
               when desired_state <> 'running' or removed_at is not null then 32767
               when held_until > now() then coalesce(held_below, 32767)
               else -32768
           end as lowest
    from device
    where id = %(device_id)s
), head as (
    select o.id, o.recipient
    from outbox o
    where o.device_id = %(device_id)s and o.state = 'queued' and o.not_before <= now()
      and (o.expires_at is null or o.expires_at > now())
      and o.priority >= (select greatest(lowest, %(lowest)s::integer) from lane)
      and (%(paced)s or not (select limited from lane))
      and not exists (select 1 from attempt served where served.secret = %(secret)s)
    order by o.priority desc, o.id
    limit 1
    for update of o
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
    select id, device_id, attempts, %(owner)s, %(secret)s from moved where state = 'sending'
    returning id, message_id
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, state, case state when 'sending' then 'attempt' else reason_code end,
           case state when 'sending' then 'Attempt ' || attempts || '.' else reason end
    from moved
)
select moved.*, tried.id as attempt_id, lane.limited,
       (
           select c.on_whatsapp
           from number_check c
           where c.number = moved.recipient
             and c.checked_at > now() - case when c.on_whatsapp then interval '30 days' else interval '1 day' end
       ) as on_whatsapp
from lane
left join moved on true
left join tried on tried.message_id = moved.id;

-- The claim that was made with this secret.
-- name: claimed_with
select o.*, a.id as attempt_id, null::boolean as on_whatsapp
from attempt a join outbox o on o.id = a.message_id
where a.secret = %(secret)s and a.ended_at is null;

-- Messages whose time ran out before they were sent. Those are few on all devices together, a lane may be long.
-- name: expire
with over as materialized (
    select id, device_id from outbox where (state || '') = 'queued' and expires_at <= now()
), late as (
    update outbox o
    set state = 'expired', reason_code = 'expired', reason = 'Its time ran out before it could be sent.',
        updated_at = now()
    from over
    where o.id = over.id and over.device_id = any(%(device_ids)s) and (o.state || '') = 'queued'
    returning o.id
)
insert into transition (message_id, state, reason_code, reason)
select id, 'expired', 'expired', 'Its time ran out before it could be sent.' from late;

-- Move one message from `sending` (or `in_doubt`) to what became of it, and close its attempt. Only the last attempt may
-- say so (null: it is the operator who does): an earlier one that is answered late must not end the one under way. An
-- attempt in doubt keeps what it is called at WhatsApp. The message is found by its id; its state is asked for in a form
-- that no index answers, or all that is in doubt could be read for it.
-- name: settle
with moved as (
    update outbox o
    set state = %(state)s, reason_code = %(code)s, reason = %(reason)s, updated_at = now(),
        external_id = coalesce(%(external_id)s, o.external_id)
    where o.id = %(message_id)s and (o.state || '') = any(%(from_states)s::text[])
      and not exists (select 1 from attempt later where later.message_id = o.id and later.id > %(attempt_id)s::bigint)
    returning o.id
), closed as (
    update attempt
    set ended_at = now(), outcome = %(state)s, reason = %(reason)s,
        external_id = case when %(state)s::text = 'in_doubt' then %(external_id)s end
    where message_id in (select id from moved) and ended_at is null
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, %(state)s, %(code)s, %(reason)s from moved
)
select id from moved;

-- Let a lane wait: its account is throttled or disconnected, and the order of its messages must stay.
-- name: hold_lane
update device
set held_until = now() + make_interval(secs => %(seconds)s), held_reason = %(reason)s, held_code = '', held_below = null
where id = %(device_id)s;

-- End a lane's wait.
-- name: release_lane
update device set held_until = null, held_reason = '', held_code = '', held_below = null
where id = %(device_id)s and held_until is not null;

-- Attempts under way whose owner is gone: what became of them must be found out.
-- name: orphans
select o.id as message_id, o.device_id, o.external_id, a.id as attempt_id, a.secret,
       a.started_at > coalesce(d.linked_at, d.created_at) as session_stands
from outbox o
join attempt a on a.message_id = o.id and a.ended_at is null
join device d on d.id = a.device_id
where o.state = 'sending' and o.device_id = any(%(device_ids)s) and a.owner <> %(owner)s
order by o.id;

-- Attempts under way for longer than any attempt takes, whoever made them: nobody is at them any more.
-- name: stranded
select o.id as message_id, o.device_id, o.external_id, a.id as attempt_id, a.secret,
       a.started_at > coalesce(d.linked_at, d.created_at) as session_stands
from outbox o
join attempt a on a.message_id = o.id and a.ended_at is null
join device d on d.id = a.device_id
where o.state = 'sending' and o.device_id = any(%(device_ids)s)
  and a.started_at < now() - make_interval(secs => %(seconds)s)
order by o.id;

-- What the attempts of a message that ended in doubt are called at WhatsApp.
-- name: doubtful_ids
select device_id, external_id from attempt where message_id = %(message_id)s and external_id is not null;

-- Note what an attempt in doubt is called at WhatsApp: its answer came late.
-- name: name_doubt
update attempt set external_id = coalesce(external_id, %(external_id)s)
where id = %(attempt_id)s and outcome = 'in_doubt'
returning id;

-- One at a time of those that learn a message's id and those that bring its receipts: at once, each would miss what
-- the other has not committed yet, and the receipt would be lost. In one order, so that none waits for the other.
-- name: lock_external_ids
select pg_advisory_xact_lock(key)
from (
    select distinct hashtextextended(external_id, 0) as key
    from unnest(%(external_ids)s::text[]) as e (external_id)
    order by key
) as keys;

-- Apply receipts: sent -> delivered -> read; an in-doubt message that got a receipt was sent. Where no stage is given,
-- whatever was reported of that id before counts: receipts may come before it is known whose id it is.
-- A later stage never goes back to an earlier one. A receipt for an attempt that ended in doubt proves that the message
-- arrived, whatever became of it since: one that was queued again is not sent a second time. While it is being sent
-- again, it is left alone: that attempt's own outcome comes first, and asks then.
-- name: apply_receipts
with told as (
    select device_id, external_id, stage
    from unnest(%(device_ids)s::bigint[], %(external_ids)s::text[], %(stages)s::text[])
         as r (device_id, external_id, stage)
), arrived as (
    select device_id, external_id, stage from told where stage is not null
    union all
    select told.device_id, told.external_id, e.body ->> 'stage'
    from told
    cross join unnest(array['sent', 'delivered', 'read']) as known (stage)
    join event e on e.device_id = told.device_id and e.kind = 'receipt'
        and e.external_id = told.external_id || ':' || known.stage
    where told.stage is null
), concerned as (
    select o.id, arrived.stage, false as of_doubt
    from arrived join outbox o on o.device_id = arrived.device_id and o.external_id = arrived.external_id
    union all
    select a.message_id, arrived.stage, true
    from arrived join attempt a on a.device_id = arrived.device_id and a.external_id = arrived.external_id
), furthest as (
    select distinct on (id) id, stage, bool_or(of_doubt) over (partition by id) as of_doubt
    from concerned
    order by id, array_position(array['sent', 'delivered', 'read'], stage) desc
), moved as (
    update outbox o
    set state = furthest.stage, reason_code = 'receipt',
        reason = case
            when o.state = 'in_doubt' then 'Settled by a receipt.'
            when o.state in ('queued', 'failed', 'expired', 'cancelled')
                then 'A receipt came for an attempt that had been in doubt: it had arrived.'
            else ''
        end,
        updated_at = now()
    from furthest
    where o.id = furthest.id
      and (
          o.state = 'in_doubt'
          or furthest.of_doubt and o.state in ('queued', 'failed', 'expired', 'cancelled')
          or coalesce(array_position(array['sent', 'delivered', 'read'], o.state), 9)
             < array_position(array['sent', 'delivered', 'read'], furthest.stage)
      )
    returning o.id, o.state, o.reason
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, state, 'receipt', reason from moved
)
select id, state from moved;

-- Cancel a message that has not been touched yet.
-- name: cancel
with moved as (
    update outbox set state = 'cancelled', reason_code = 'cancelled', reason = 'Cancelled by the operator.',
        updated_at = now()
    where id = %(message_id)s and state = 'queued'
    returning id
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, 'cancelled', 'cancelled', 'Cancelled by the operator.' from moved
)
select id from moved;

-- Cancel what a removed device had still to send.
-- name: cancel_lane
with moved as (
    update outbox set state = 'cancelled', reason_code = 'device_removed', reason = 'Its device was removed.',
        updated_at = now()
    where device_id = %(device_id)s and state = 'queued'
    returning id
)
insert into transition (message_id, state, reason_code, reason)
select id, 'cancelled', 'device_removed', 'Its device was removed.' from moved;

-- One message with its device.
-- name: message
select o.*, d.name as device, d.platform, d.removed_at
from outbox o join device d on d.id = o.device_id
where o.id = %(message_id)s;

-- The story of one message.
-- name: story
select at, state, reason_code, reason from transition where message_id = %(message_id)s order by id;

-- The attempts of one message.
-- name: attempts
select number, started_at, ended_at, outcome, reason, external_id from attempt where message_id = %(message_id)s order by id;

-- Messages, newest first; in-doubt ones oldest first, since those wait for an answer.
-- name: list
select o.id, d.name as device, d.platform, o.recipient, o.kind, o.body, o.state, o.reason_code, o.reason,
       o.attempts, o.external_id, o.idempotency_key, o.created_at, o.updated_at
from outbox o join device d on d.id = o.device_id
where (%(state)s::text is null or o.state = %(state)s)
order by case when %(state)s::text = 'in_doubt' then o.id end, o.id desc
limit %(limit)s;

-- The same of the devices of one name (those that were removed had it before), each by its own index.
-- name: list_of_device
select o.id, d.name as device, d.platform, o.recipient, o.kind, o.body, o.state, o.reason_code, o.reason,
       o.attempts, o.external_id, o.idempotency_key, o.created_at, o.updated_at
from device d
cross join lateral (
    select * from outbox
    where device_id = d.id and (%(state)s::text is null or state = %(state)s)
    order by case when %(state)s::text = 'in_doubt' then id end, id desc
    limit %(limit)s
) o
where d.name = %(device)s
order by case when %(state)s::text = 'in_doubt' then o.id end, o.id desc
limit %(limit)s;

-- The one with an idempotency key.
-- name: list_of_key
select o.id, d.name as device, d.platform, o.recipient, o.kind, o.body, o.state, o.reason_code, o.reason,
       o.attempts, o.external_id, o.idempotency_key, o.created_at, o.updated_at
from outbox o join device d on d.id = o.device_id
where o.idempotency_key = %(key)s
  and (%(state)s::text is null or o.state = %(state)s) and (%(device)s::text is null or d.name = %(device)s)
limit %(limit)s;

-- How many messages stand in each state.
-- name: counts
select state, count(*) as messages from outbox group by state;

-- The states of the messages with these ids.
-- name: states
select id, state, reason_code, reason from outbox where id = any(%(ids)s);

-- Doubts that lasted longer than the configured patience: sent again, by the operator's standing order.
-- name: end_patience
with moved as (
    update outbox
    set state = 'queued', reason_code = 'patience_over',
        reason = 'In doubt for longer than in_doubt_patience_seconds; it is sent again.', updated_at = now()
    where device_id = any(%(device_ids)s) and state = 'in_doubt'
      and updated_at < now() - make_interval(secs => %(seconds)s)
    returning id, reason_code, reason
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, 'queued', reason_code, reason from moved
)
select id from moved;

-- Expire whatever came too late, also on devices that are paused or unlinked.
-- name: expire_everywhere
with late as (
    update outbox
    set state = 'expired', reason_code = 'expired', reason = 'Its time ran out before it could be sent.',
        updated_at = now()
    where (state || '') = 'queued' and expires_at <= now()
    returning id
)
insert into transition (message_id, state, reason_code, reason)
select id, 'expired', 'expired', 'Its time ran out before it could be sent.' from late;

-- What a removed device left behind: nobody works on its lane any more. What was on its way then, long ago, may have
-- gone; what had certainly not gone by then (it was queued again) never will.
-- name: end_removed
with left_behind as (
    select o.id
    from device d join outbox o on o.device_id = d.id and o.state = 'queued'
    where d.removed_at is not null
    union all
    select o.id
    from device d join outbox o on o.device_id = d.id and o.state = 'sending'
    where d.removed_at is not null
      and greatest(o.updated_at, d.removed_at) < now() - make_interval(secs => %(seconds)s)
), ended as (
    update outbox o
    set state = case o.state when 'sending' then 'in_doubt' else 'cancelled' end, reason_code = 'device_removed',
        reason = case o.state
            when 'sending' then 'Its device was removed while the message was on its way.'
            else 'Its device was removed.'
        end,
        updated_at = now()
    from left_behind
    where o.id = left_behind.id and o.state in ('queued', 'sending')
    returning o.id, o.state, o.reason
), closed as (
    update attempt a
    set ended_at = now(), outcome = 'in_doubt', reason = ended.reason
    from ended
    where a.message_id = ended.id and a.ended_at is null
)
insert into transition (message_id, state, reason_code, reason)
select id, state, 'device_removed', reason from ended;

-- Whether a message's device was removed.
-- name: is_of_removed_device
select 1 from outbox o join device d on d.id = o.device_id where o.id = %(message_id)s and d.removed_at is not null;

-- Which of these media are named by a message that has no outcome yet.
-- name: unfinished_media
select distinct media_url
from outbox
where state in ('queued', 'sending', 'in_doubt') and media_url = any(%(urls)s::text[]);
