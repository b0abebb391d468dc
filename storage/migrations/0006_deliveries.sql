-- Delivery reports of platforms.

-- Other names that a provider has for a message: the first report ties one to the message's id, later ones may carry it
-- alone (Fonnte's stateid).
create table message_name (
    device_id    bigint      not null references device,
    name         text        not null,
    external_id  text        not null,
    at           timestamptz not null default now(),
    primary key (device_id, name)
);
create index message_name_external_id on message_name (device_id, external_id);
