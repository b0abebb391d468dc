-- Tell an endpoint something that happened to nobody: a test.
-- name: test
insert into endpoint_delivery (endpoint_id, lane, event_id, type, body)
values (
    %(endpoint_id)s, 0, gen_random_uuid(), 'webhook.test',
    jsonb_build_object(
        'type', 'webhook.test', 'timestamp', now(), 'data', jsonb_build_object('endpoint', %(endpoint_id)s::bigint)
    )
)
returning id;

-- Take what is due: for each of these endpoints, so many of its lanes, and of each lane its head and what follows it.
-- The heads are found lane by lane, one look into the index each, however much waits. A lane whose head is being
-- delivered, or waits for its next attempt, waits as a whole. Only who has locked the head may take what follows.
-- name: claim
with wanted as (
    select * from unnest(%(endpoint_ids)s::bigint[], %(lanes)s::integer[]) as w (endpoint_id, lanes)
), busy as materialized (
    select * from unnest(%(busy_endpoints)s::bigint[], %(busy_lanes)s::bigint[]) as b (endpoint_id, lane)
), due as materialized (
    select head.id
    from wanted w
    cross join lateral (
        with recursive heads as (
            (
                select d.lane, d.id, d.next_at, d.leased_until
                from endpoint_delivery d
                where d.endpoint_id = w.endpoint_id and d.state = 'pending'
                order by d.lane, d.id
                limit 1
            )
            union all
            select following.*
            from heads
            cross join lateral (
                select d.lane, d.id, d.next_at, d.leased_until
                from endpoint_delivery d
                where d.endpoint_id = w.endpoint_id and d.state = 'pending' and d.lane > heads.lane
                order by d.lane, d.id
                limit 1
            ) as following
        )
        select heads.id
        from heads
        where heads.next_at <= now() and (heads.leased_until is null or heads.leased_until < now())
          and not exists (select from busy where busy.endpoint_id = w.endpoint_id and busy.lane = heads.lane)
        order by heads.id
        limit w.lanes
    ) as head
), locked as materialized (
    select d.id, d.endpoint_id, d.lane
    from endpoint_delivery d
    join due on due.id = d.id
    where d.state = 'pending' and d.next_at <= now() and (d.leased_until is null or d.leased_until < now())
    for update of d skip locked
), taken as materialized (
    select following.id
    from locked l
    cross join lateral (
        select d.id
        from endpoint_delivery d
        where d.endpoint_id = l.endpoint_id and d.lane = l.lane and d.state = 'pending' and d.id >= l.id
        order by d.id
        limit %(run)s
    ) as following
)
update endpoint_delivery d
set leased_by = %(owner)s, leased_until = now() + make_interval(secs => %(seconds)s)
from taken
where d.id = taken.id and d.state = 'pending'
returning d.id, d.endpoint_id, d.lane, d.event_id, d.type, d.body, d.attempts, d.retry_until,
          d.next_at <= now() as due, d.retry_until <= now() as late;

-- Record what came of attempts; what is over already stays as it is.
-- name: record
update endpoint_delivery d
set state = told.state, attempts = d.attempts + 1, tried_at = now(), status = told.status, answer = told.answer,
    problem = told.problem, next_at = now() + make_interval(secs => told.wait), leased_by = null, leased_until = null
from unnest(
    %(ids)s::bigint[], %(states)s::text[], %(statuses)s::integer[], %(answers)s::text[], %(problems)s::text[],
    %(waits)s::double precision[]
) as told (id, state, status, answer, problem, wait)
where d.id = told.id and d.state = 'pending';

-- An endpoint that failed takes deliveries again: do not let the others wait out pauses that were meant for its outage.
-- Only heads of lanes have been tried. Who was told to come later (429) keeps to that.
-- name: bring_forward
update endpoint_delivery
set next_at = least(next_at, now() + make_interval(secs => random() * %(seconds)s))
where endpoint_id = any(%(endpoint_ids)s) and state = 'pending' and attempts > 0 and next_at > now()
  and leased_until is null and status is distinct from 429;

-- Give back what was taken and not tried.
-- name: release
update endpoint_delivery set leased_by = null, leased_until = null where id = any(%(ids)s) and state = 'pending';

-- Give back what a former process of this owner had taken.
-- name: release_owner
update endpoint_delivery set leased_by = null, leased_until = null
where state = 'pending' and leased_by = %(owner)s;

-- Switch endpoints off that say they are gone.
-- name: disable
update endpoint set enabled = false, disabled_reason = %(reason)s where id = any(%(ids)s) and enabled;

-- Tell dead letters (or one delivery, whatever became of it) once more.
-- name: replay
update endpoint_delivery
set state = 'pending', attempts = 0, next_at = now(), retry_until = now() + interval '3 days', leased_by = null,
    leased_until = null
where endpoint_id = %(endpoint_id)s and id in (
    select id from endpoint_delivery
    where endpoint_id = %(endpoint_id)s
      and case when %(id)s::bigint is null then state = 'dead' else id = %(id)s and state <> 'pending' end
    order by id
    limit %(limit)s
)
returning id;

-- The newest deliveries of an endpoint.
-- name: latest
select id, event_id, type, state, attempts, created_at, tried_at, next_at, status, answer, problem
from endpoint_delivery
where endpoint_id = %(endpoint_id)s and (%(before)s::bigint is null or id < %(before)s)
order by id desc
limit %(limit)s;

-- The newest dead letters of an endpoint.
-- name: latest_dead
select id, event_id, type, state, attempts, created_at, tried_at, next_at, status, answer, problem
from endpoint_delivery
where endpoint_id = %(endpoint_id)s and state = 'dead' and (%(before)s::bigint is null or id < %(before)s)
order by id desc
limit %(limit)s;

-- One delivery, with what is told.
-- name: by_id
select id, endpoint_id, event_id, type, body, state, attempts, created_at, tried_at, next_at, status, answer, problem
from endpoint_delivery
where id = %(id)s;

-- How much each endpoint is still to be told, since when, and how much it never was.
-- name: counts
select e.id as endpoint_id, e.enabled, pending.deliveries as pending, pending.oldest, dead.deliveries as dead
from endpoint e
cross join lateral (
    select count(*) as deliveries, min(created_at) as oldest
    from (
        select created_at from endpoint_delivery where endpoint_id = e.id and state = 'pending' limit %(limit)s
    ) as few
) as pending
cross join lateral (
    select count(*) as deliveries
    from (select from endpoint_delivery where endpoint_id = e.id and state = 'dead' limit %(limit)s) as few
) as dead
order by e.id;

-- Forget deliveries that are over for long enough, some at a time.
-- name: forget
delete from endpoint_delivery
where id in (
    select id from endpoint_delivery
    where state = %(state)s and state <> 'pending' and tried_at < now() - make_interval(days => %(days)s)
    limit %(limit)s
);

-- Forget what removed endpoints were still to be told, some at a time. Endpoints are looked up one by one in the index.
-- name: forget_removed
delete from endpoint_delivery
where id in (
    select d.id from endpoint_delivery d
    where d.endpoint_id = any(
        array(
            with recursive known as (
                (select endpoint_id from endpoint_delivery order by endpoint_id limit 1)
                union all
                select (
                    select d.endpoint_id from endpoint_delivery d
                    where d.endpoint_id > known.endpoint_id order by d.endpoint_id limit 1
                )
                from known where known.endpoint_id is not null
            )
            select endpoint_id from known where endpoint_id is not null
            except
            select id from endpoint
        )
    )
    limit %(limit)s
);
