-- The answer to a request that was carried out before.
-- name: find
select answer from handled_request where request = %(request)s;

-- Remember the answer to a request, in the transaction that carries it out.
-- name: note
insert into handled_request (request, answer) values (%(request)s, %(answer)s);

-- Forget requests that nobody can still be asking.
-- name: forget
delete from handled_request where at < now() - interval '1 hour';
