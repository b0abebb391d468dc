-- The head of a lane that has limits, and those limits. No row: nothing may go, whatever the limits say.
-- name: lane
select now() as now, head.priority, d.gap_seconds, d.jitter_seconds, d.per_hour, d.per_day,
       coalesce(d.linked_at, d.created_at) as young_since
from device d
join lateral (
    select o.priority
    from outbox o
    where o.device_id = d.id and o.state = 'queued' and o.not_before <= now()
      and (o.expires_at is null or o.expires_at > now())
      and o.priority >= case when d.held_until > now() then coalesce(d.held_below, 32767) else -32768 end
    order by o.priority desc, o.id
    limit 1
) head on true
where d.id = %(device_id)s and d.desired_state = 'running';

-- What a device sent lately. What never left does not count; what was refused counts for the gap alone.
-- name: sends
select max(coalesce(ended_at, started_at)) filter (where outcome is distinct from 'queued') as last_at,
       max(id) filter (where outcome is distinct from 'queued') as last_attempt,
       count(*) filter (where counts and started_at > now() - interval '1 hour') as in_hour,
       min(started_at) filter (where counts and started_at > now() - interval '1 hour') as hour_oldest,
       count(*) filter (where counts and started_at > now() - interval '1 day') as in_day,
       min(started_at) filter (where counts and started_at > now() - interval '1 day') as day_oldest
from (
    select id, started_at, ended_at, outcome, outcome is null or outcome in ('sent', 'in_doubt') as counts
    from attempt
    where device_id = %(device_id)s and started_at > now() - make_interval(secs => %(window_seconds)s)
) as lately;

-- Let a lane wait because a rule says so.
-- name: hold
update device
set held_until = %(until)s, held_reason = %(reason)s, held_code = %(code)s, held_below = %(below)s
where id = %(device_id)s;

-- End every wait that a rule caused: the rules may have changed, and the next claim asks them anyway.
-- name: release_holds
update device set held_until = null, held_reason = '', held_code = '', held_below = null where held_code <> '';

-- A device's own limits; a wait that the old ones caused ends.
-- name: set_limits
update device
set gap_seconds = %(gap_seconds)s, jitter_seconds = %(jitter_seconds)s,
    per_hour = %(per_hour)s, per_day = %(per_day)s,
    held_until = case when held_code = '' then held_until end,
    held_reason = case when held_code = '' then held_reason else '' end,
    held_below = case when held_code = '' then held_below end,
    held_code = ''
where id = %(device_id)s;

-- Note numbers that must not be written to any more, and cancel what is queued for them.
-- name: opt_out
with fresh as (
    insert into opt_out (number, source, device_id, word)
    select number, %(source)s, %(device_id)s, %(word)s from unnest(%(numbers)s::text[]) as given (number)
    on conflict do nothing
    returning number
), stopped as (
    update outbox
    set state = 'cancelled', reason_code = 'opted_out', reason = 'Its recipient has opted out.', updated_at = now()
    where (state || '') = 'queued' and recipient = any(%(numbers)s::text[])
    returning id
), story as (
    insert into transition (message_id, state, reason_code, reason)
    select id, 'cancelled', 'opted_out', 'Its recipient has opted out.' from stopped
)
select (select count(*) from fresh where number = any(%(given)s::text[])) as added, (select count(*) from stopped) as cancelled;

-- Numbers that may be written to again.
-- name: opt_in
delete from opt_out where number = any(%(numbers)s::text[]) returning number;

-- Which of these numbers have opted out.
-- name: opted_out
select number from opt_out where number = any(%(numbers)s::text[]);

-- The opt-out list, newest first.
-- name: list_opt_outs
select o.number, o.at, o.source, d.name as device, o.word
from opt_out o left join device d on d.id = o.device_id
order by o.at desc, o.number
limit %(limit)s;

-- How many numbers have opted out, and how many devices have limits of their own.
-- name: overview
select (select count(*) from opt_out) as opted_out,
       count(*) filter (where num_nonnulls(gap_seconds, jitter_seconds, per_hour, per_day) > 0) as devices_with_limits
from device
where removed_at is null;

-- What WhatsApp said about a number.
-- name: note_check
insert into number_check (number, on_whatsapp) values (%(number)s, %(on_whatsapp)s)
on conflict (number) do update set on_whatsapp = excluded.on_whatsapp, checked_at = now();

-- What WhatsApp said about a number, and when.
-- name: check_of
select on_whatsapp, checked_at from number_check where number = %(number)s;
