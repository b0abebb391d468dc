-- Which of several senders a recipient was last reached from, found without looking through the outbox: fail-over asks
-- it for each message that it moves.
create index outbox_reached on outbox (recipient, device_id, id) where state in ('sent', 'delivered', 'read');
