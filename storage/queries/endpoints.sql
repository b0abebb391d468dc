-- Add an endpoint.
-- name: add
insert into endpoint (url, description, events, device_id, secret)
values (%(url)s, %(description)s, %(events)s, %(device_id)s, %(secret)s)
returning id;

-- How many there are. The lock lets one addition after the other count.
-- name: count
with one_by_one as materialized (select pg_advisory_xact_lock(5201317))
select count(e.id) as endpoints from one_by_one left join endpoint e on true;

-- Every endpoint, with how much it is still to be told and how much it never was.
-- name: all
select e.id, e.url, e.description, e.events, d.name as device, e.secret, e.enabled, e.disabled_reason, e.created_at
from endpoint e left join device d on d.id = e.device_id
order by e.id;

-- One endpoint.
-- name: by_id
select e.id, e.url, e.description, e.events, d.name as device, e.secret, e.enabled, e.disabled_reason, e.created_at
from endpoint e left join device d on d.id = e.device_id
where e.id = %(id)s;

-- Change an endpoint; what is null stays. One that is switched on again has no reason to be off.
-- name: change
update endpoint
set url = coalesce(%(url)s, url), description = coalesce(%(description)s, description),
    events = coalesce(%(events)s, events), enabled = coalesce(%(enabled)s, enabled),
    disabled_reason = case when %(enabled)s is null then disabled_reason else %(reason)s end
where id = %(id)s
returning id;

-- Remove an endpoint.
-- name: remove
delete from endpoint where id = %(id)s returning id;
