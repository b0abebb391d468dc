-- A key.
-- name: add
insert into api_key (public_id, name, scope, digest, device_ids, per_minute)
values (%(public_id)s, %(name)s, %(scope)s, %(digest)s, %(device_ids)s, %(per_minute)s)
on conflict (public_id) do nothing;

-- Every key with the names of its devices, the oldest first; a device that was removed has none any more.
-- name: all
select k.id, k.public_id, k.name, k.scope, k.per_minute, k.created_at, k.revoked_at, k.device_ids is not null as bound,
       array(select d.name from device d where d.id = any(k.device_ids) and d.removed_at is null order by d.name)
           as devices
from api_key k
order by k.id;

-- The keys that may be used now, with the devices that they are bound to.
-- name: usable
select k.public_id, k.scope, k.digest, k.per_minute, k.device_ids is not null as bound,
       array(select d.id from device d where d.id = any(k.device_ids) and d.removed_at is null order by d.id)
           as device_ids,
       array(select d.name from device d where d.id = any(k.device_ids) and d.removed_at is null order by d.id)
           as device_names
from api_key k
where k.revoked_at is null;

-- A key ends.
-- name: revoke
update api_key set revoked_at = now() where public_id = %(public_id)s and revoked_at is null;
