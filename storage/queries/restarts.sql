-- Record a restart or refresh.
-- name: record
insert into restart (at, what, name, device_id, cause_code, cause, attempt, tried, outcome, seconds, request)
values (%(at)s, %(what)s, %(name)s, %(device_id)s, %(cause_code)s, %(cause)s, %(attempt)s, %(tried)s, %(outcome)s,
        %(seconds)s, %(request)s);

-- The latest restarts, oldest of them first, after a given id.
-- name: latest
select * from (
    select * from restart
    where (%(device_id)s::bigint is null or device_id = %(device_id)s) and id > %(after)s
    order by id desc limit %(limit)s
) as newest order by id;

-- What came of one request.
-- name: by_request
select * from restart where request = %(request)s order by id desc limit 1;
