-- What an attempt that ended in doubt was called at WhatsApp. A receipt for it settles its message, also when the message
-- has been queued, sent or handed to another device since.
alter table attempt add column external_id text;
update attempt a
set external_id = o.external_id
from outbox o
where o.id = a.message_id and o.state = 'in_doubt' and o.external_id is not null
  and a.id = (select max(last.id) from attempt last where last.message_id = o.id);
create index attempt_external_id on attempt (device_id, external_id) where external_id is not null;
