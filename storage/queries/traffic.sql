-- How far the counting came; whoever counts holds the row, and a second one goes away.
-- name: claim
select transition, restart from traffic_counted for update skip locked;

-- The next transitions and restarts to count, so many at most: the last of each that is old enough that no transaction
-- with a lower number can still be under way.
-- name: upto
select coalesce(t.upto, %(transition)s) as transition, coalesce(r.upto, %(restart)s) as restart,
       greatest(t.seen, r.seen) as seen
from (
    select max(id) filter (where at < now() - make_interval(secs => %(age_seconds)s)) as upto, count(*) as seen
    from (select id, at from transition where id > %(transition)s order by id limit %(rows)s) as next
) as t,
(
    select max(id) filter (where at < now() - make_interval(secs => %(age_seconds)s)) as upto, count(*) as seen
    from (select id, at from restart where id > %(restart)s order by id limit %(rows)s) as next
) as r;

-- Add what the transitions of a range of ids say to their minutes.
-- name: count_transitions
with counted as (
    select date_trunc('minute', t.at) as minute, t.state,
           case when t.state = 'delivered' then
               width_bucket(extract(epoch from t.at - o.created_at), array[1, 2, 5, 10, 30, 60, 300, 1800]) + 1
           end as bucket
    from transition t
    left join outbox o on t.state = 'delivered' and o.id = t.message_id
    where t.id > %(after)s and t.id <= %(upto)s and t.state in ('sent', 'delivered', 'failed', 'in_doubt')
), sums as (
    select minute,
           count(*) filter (where state = 'sent') as sent,
           count(*) filter (where state = 'delivered') as delivered,
           count(*) filter (where state = 'failed') as failed,
           count(*) filter (where state = 'in_doubt') as in_doubt,
           array[
               count(*) filter (where bucket = 1), count(*) filter (where bucket = 2),
               count(*) filter (where bucket = 3), count(*) filter (where bucket = 4),
               count(*) filter (where bucket = 5), count(*) filter (where bucket = 6),
               count(*) filter (where bucket = 7), count(*) filter (where bucket = 8),
               count(*) filter (where bucket = 9)
           ]::integer[] as delivery
    from counted
    group by minute
)
insert into traffic as t (minute, sent, delivered, failed, in_doubt, delivery)
select minute, sent, delivered, failed, in_doubt, delivery from sums
on conflict (minute) do update
set sent = t.sent + excluded.sent, delivered = t.delivered + excluded.delivered, failed = t.failed + excluded.failed,
    in_doubt = t.in_doubt + excluded.in_doubt,
    delivery = (
        select array_agg(a.n + b.n order by a.position)
        from unnest(t.delivery) with ordinality as a (n, position)
        join unnest(excluded.delivery) with ordinality as b (n, position) using (position)
    );

-- Add what the restarts of a range of ids say to their minutes.
-- name: count_restarts
insert into traffic as t (minute, reconnects, restarts)
select date_trunc('minute', at), count(*) filter (where what = 'device'), count(*) filter (where what <> 'device')
from restart
where id > %(after)s and id <= %(upto)s
group by 1
on conflict (minute) do update
set reconnects = t.reconnects + excluded.reconnects, restarts = t.restarts + excluded.restarts;

-- Remember how far it came.
-- name: counted
update traffic_counted set transition = %(transition)s, restart = %(restart)s;

-- Forget minutes that no chart shows.
-- name: forget
delete from traffic where minute < now() - interval '35 days';

-- The minutes of the last so many seconds, added up in equal spans; a span without any is left out. At most as many rows
-- are read as there are minutes.
-- name: spans
select floor(extract(epoch from minute) / %(span)s)::bigint * %(span)s as begins,
       sum(sent) as sent, sum(delivered) as delivered, sum(failed) as failed, sum(in_doubt) as in_doubt,
       sum(reconnects) as reconnects, sum(restarts) as restarts,
       array[
           sum(delivery[1]), sum(delivery[2]), sum(delivery[3]), sum(delivery[4]), sum(delivery[5]),
           sum(delivery[6]), sum(delivery[7]), sum(delivery[8]), sum(delivery[9])
       ]::bigint[] as delivery
from traffic
where minute >= to_timestamp(%(since)s)
group by 1
order by 1;
