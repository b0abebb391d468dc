-- Circuit breakers of platforms and accounts that are not closed, so that people see why lanes wait.
create table breaker (
    platform    text        not null,
    account     text        not null default '',           -- the device's name; empty: the whole provider
    state       text        not null,
    reason      text        not null,
    failures    integer     not null,
    since       timestamptz not null default now(),
    primary key (platform, account)
);
