-- Leases: which host may connect a device. The token grows with each change of hands, so that an old holder can be told.
create table lease (
    device_id   bigint      primary key references device,
    holder      text        not null,
    token       bigint      not null default 1,
    expires_at  timestamptz not null
) with (fillfactor = 50);
