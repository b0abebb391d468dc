-- Renew the leases that are ours and take those that are free or have run out, all in one statement.
-- name: hold
insert into lease (device_id, holder, expires_at)
select wanted.id, %(holder)s, now() + make_interval(secs => %(seconds)s)
from unnest(%(device_ids)s::bigint[]) as wanted (id)
on conflict (device_id) do update
set holder = excluded.holder,
    token = lease.token + (lease.holder <> excluded.holder)::int,
    expires_at = excluded.expires_at
where lease.holder = excluded.holder or lease.expires_at < now()
returning device_id;

-- Let every lease of ours go.
-- name: release
update lease set expires_at = now() where holder = %(holder)s;

-- Who holds a device, and until when.
-- name: holder_of
select holder, token, expires_at from lease where device_id = %(device_id)s and expires_at > now();
