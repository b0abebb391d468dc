-- What keeps its cost while backlog and history grow.

-- The planner takes any index that holds just the queued messages for the cheapest way to a few of them, whatever its
-- columns, and then reads the whole backlog: a claim would cost the more, the more is waiting. So only the lane's index
-- says state = 'queued'; the others say it in words that only those use who look for what they are sorted by.
drop index outbox_queued_recipient;
create index outbox_queued_recipient on outbox (recipient) where (state || '') = 'queued';
drop index outbox_expiring;
create index outbox_expiring on outbox (expires_at) where (state || '') = 'queued' and expires_at is not null;

-- Lists: a device's messages, and those that did not arrive, newest first.
create index outbox_of_device on outbox (device_id, id);
create index outbox_not_sent on outbox (state, id) where state in ('failed', 'expired', 'cancelled');
