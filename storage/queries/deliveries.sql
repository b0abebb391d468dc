-- Tie other names of messages to their ids; the first tie holds.
-- name: tie
insert into message_name (device_id, name, external_id)
select %(device_id)s, name, external_id
from unnest(%(names)s::text[], %(external_ids)s::text[]) as t (name, external_id)
on conflict do nothing;

-- The ids that these names are tied to.
-- name: tied
select name, external_id from message_name where device_id = %(device_id)s and name = any(%(names)s);

-- Give messages the ids that reports bring for our own references. An attempt's reference is its message's id and the
-- beginning of its secret, so that nobody makes one up. What has an id keeps it.
-- name: identify
update outbox o
set external_id = r.external_id
from unnest(%(message_ids)s::bigint[], %(secrets)s::text[], %(external_ids)s::text[])
         as r (message_id, secret, external_id)
where o.id = r.message_id and o.device_id = %(device_id)s and o.external_id is null
  and o.state in ('sending', 'in_doubt', 'sent', 'failed')
  and exists (
      select 1 from attempt a
      where a.message_id = o.id and a.device_id = o.device_id and left(encode(a.secret, 'hex'), 16) = r.secret
  );

-- The messages with these ids at their provider.
-- name: by_external_id
select id, external_id from outbox where device_id = %(device_id)s and external_id = any(%(external_ids)s);

-- The messages whose attempts have these references.
-- name: by_reference
select o.id, r.reference
from unnest(%(message_ids)s::bigint[], %(secrets)s::text[], %(references)s::text[])
         as r (message_id, secret, reference)
join outbox o on o.id = r.message_id
where exists (
    select 1 from attempt a
    where a.message_id = o.id and a.device_id = %(device_id)s and left(encode(a.secret, 'hex'), 16) = r.secret
);

-- Apply reports, and what was reported before under the names by which messages are known now: those given, their id
-- at the provider, and the names tied to these. Of several reports about one message the furthest counts, whatever their
-- order: what was delivered did not fail. A message that waits or is being sent is left alone: its own outcome comes
-- first, and asks then. But one that waits after an attempt in doubt, and of which the platform reports that it went,
-- is not sent again.
-- name: apply
with named as (
    select message_id, device_id, name
    from unnest(%(named_ids)s::bigint[], %(device_ids)s::bigint[], %(names)s::text[]) as t (message_id, device_id, name)
    union
    select o.id, o.device_id, o.external_id
    from outbox o
    where o.id = any(%(named_ids)s::bigint[]) and o.external_id is not null
), every_name as (
    select message_id, device_id, name from named
    union
    select named.message_id, named.device_id, m.name
    from named join message_name m on m.device_id = named.device_id and m.external_id = named.name
), reported as (
    select every_name.message_id, e.body ->> 'stage' as stage, coalesce(e.body ->> 'reason', '') as reason
    from every_name
    join event e on e.device_id = every_name.device_id and e.kind = 'receipt' and e.external_id in (
        every_name.name || ':sent', every_name.name || ':failed',
        every_name.name || ':delivered', every_name.name || ':read'
    )
    union all
    select message_id, stage, reason
    from unnest(%(message_ids)s::bigint[], %(stages)s::text[], %(reasons)s::text[]) as r (message_id, stage, reason)
), arrived as (
    select distinct on (message_id) message_id, stage, reason
    from reported
    order by message_id, array_position(array['sent', 'failed', 'delivered', 'read'], stage) desc
), moved as (
    update outbox o
    set state = arrived.stage,
        reason_code = case arrived.stage when 'failed' then 'provider_failed' else 'receipt' end,
        reason = case
            when arrived.stage = 'failed' then arrived.reason
            when o.state = 'in_doubt' then 'Settled by a report of the platform.'
            when o.state in ('queued', 'expired', 'cancelled')
                then 'The platform reports an attempt that had been in doubt: it went.'
            else ''
        end,
        updated_at = now()
    from arrived
    where o.id = arrived.message_id
      and (
          array_position(array['in_doubt', 'sent', 'failed', 'delivered', 'read'], o.state)
              < array_position(array['in_doubt', 'sent', 'failed', 'delivered', 'read'], arrived.stage)
          or o.state in ('queued', 'expired', 'cancelled') and arrived.stage <> 'failed'
              and exists (select 1 from attempt a where a.message_id = o.id and a.outcome = 'in_doubt')
      )
    returning o.id, o.state, o.reason_code, o.reason
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, state, reason_code, reason from moved
)
select id, state from moved;
