-- Queries on whatsmeow's own tables, in its own database. Their columns are those of its schema version 15.

-- The stored login of one companion, with how many contacts' Signal sessions came with it.
-- name: stored_session
select device.jid,
       coalesce(device.lid, '') as lid,
       (select count(*) from whatsmeow_sessions as session where session.our_jid = device.jid) as contacts
from whatsmeow_device as device
where device.jid = %(jid)s;

-- The message each of these secrets was stored for. The chat is no help here: it is a LID even when a phone number
-- was written to.
-- name: message_ids
select key, message_id from whatsmeow_message_secrets where key = any(%(secrets)s);

-- Remove secrets that prove nothing any more.
-- name: forget_secrets
delete from whatsmeow_message_secrets where key = any(%(secrets)s);

-- Finding a secret by its value needs an index that whatsmeow does not bring.
-- name: index_secrets
create index if not exists salamander_message_secrets_key on whatsmeow_message_secrets (key);

-- The phone number behind a LID, as far as whatsmeow has learnt it.
-- name: phone_of_lid
select pn from whatsmeow_lid_map where lid = %(lid)s;

-- End a stored login; everything that belongs to it cascades from the device's row.
-- name: delete_session
delete from whatsmeow_device where jid = %(jid)s;

-- One migration at a time: whatsmeow's own fails when several clients find an empty database. The lock is the
-- transaction's, which waits for the process that migrates: PgBouncer lends no connection for longer than that.
-- name: lock_migration
select pg_advisory_xact_lock(%(key)s), set_config('idle_in_transaction_session_timeout', '0', true);
