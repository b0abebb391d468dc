-- Where a device's messages go when its own route definitely does not take them, in order of preference.
create table fallback (
    device_id    bigint   not null references device,
    position     smallint not null,
    fallback_id  bigint   not null references device,
    primary key (device_id, position),
    check (device_id <> fallback_id)
);

-- The routes a message has left already: it never goes back to one.
alter table outbox add column left_routes bigint[] not null default '{}';
