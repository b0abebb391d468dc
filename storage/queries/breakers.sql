-- Show a breaker that opened or probes.
-- name: show
insert into breaker (platform, account, state, reason, failures)
values (%(platform)s, %(account)s, %(state)s, %(reason)s, %(failures)s)
on conflict (platform, account) do update
set state = excluded.state, reason = excluded.reason, failures = excluded.failures,
    since = case when breaker.state = excluded.state then breaker.since else now() end;

-- A breaker closed.
-- name: clear
delete from breaker where platform = %(platform)s and account = %(account)s;

-- A platform's actor begins with every breaker closed.
-- name: clear_platform
delete from breaker where platform = %(platform)s;

-- The breakers that are not closed.
-- name: all
select platform, account, state, reason, failures, since from breaker order by platform, account;
