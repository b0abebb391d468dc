-- Care for the numbers: limits of a device, why its lane waits, who must not be written to, who is on WhatsApp.

-- A device's own limits; null: the installation's setting holds, 0: none.
alter table device
    add column gap_seconds     double precision check (gap_seconds >= 0),
    add column jitter_seconds  double precision check (jitter_seconds >= 0),
    add column per_hour        integer check (per_hour >= 0),
    add column per_day         integer check (per_day >= 0),
    add column linked_at       timestamptz,                -- when its phone was linked: its warm-up begins
    add column held_code       text not null default '',   -- which rule holds the lane; empty: an account's trouble
    add column held_below      smallint;                   -- messages of this priority and above go all the same

-- What a device sent lately is counted from its attempts, so that counts survive every restart.
alter table attempt add column device_id bigint;
update attempt set device_id = outbox.device_id from outbox where outbox.id = attempt.message_id;
alter table attempt alter column device_id set not null;
create index attempt_of_device on attempt (device_id, started_at);

-- Numbers that asked not to be written to. Every route obeys.
create table opt_out (
    number      text        primary key,                   -- E.164 digits without +
    at          timestamptz not null default now(),
    source      text        not null check (source in ('operator', 'import', 'keyword')),
    device_id   bigint      references device,              -- keyword: the device that was written to
    word        text        not null default ''             -- keyword: what was written
);
create index outbox_queued_recipient on outbox (recipient) where state = 'queued';

-- What WhatsApp said about a number, and when.
create table number_check (
    number       text        primary key,
    on_whatsapp  boolean     not null,
    checked_at   timestamptz not null default now()
);
