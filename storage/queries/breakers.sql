-- Show a breaker that opened or probes.
-- name: show
insert into breaker (platform, account, state, reason, failures)
values (%(platform)s, %(account)s, %(state)s, %(reason)s, %(failures)s)
on conflict (platform, account) do update
set state = excluded.state, reason = excluded.reason, failures = excluded.failures,
    since = case when breaker.state = excluded.state then breaker.since else now() end;

-- A provider reported that an account is in trouble: its breaker has to open, unless it is already. No failure was
-- counted, which tells such a row from one of the actor's own.
-- name: report
insert into breaker (platform, account, state, reason, failures)
values (%(platform)s, %(account)s, 'open', %(reason)s, 0)
on conflict (platform, account) do nothing;

-- The accounts whose breaker has to open since a report said so.
-- name: reported
select account, reason from breaker where platform = %(platform)s and state = 'open' and failures = 0;

-- A breaker closed.
-- name: clear
delete from breaker where platform = %(platform)s and account = %(account)s;

-- A platform's actor begins with every breaker closed.
-- name: clear_platform
delete from breaker where platform = %(platform)s;

-- The breakers that are not closed.
-- name: all
select platform, account, state, reason, failures, since from breaker order by platform, account;
