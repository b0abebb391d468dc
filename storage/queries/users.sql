-- Add a user; the unique name makes a second one fail.
-- name: add
insert into dashboard_user (name, role, password_hash) values (%(name)s, %(role)s, %(password_hash)s) returning id;

-- Every user.
-- name: all
select u.id, u.name, u.role, u.created_at, max(s.seen_at) as seen_at
from dashboard_user u left join dashboard_session s on s.user_id = u.id
group by u.id
order by u.name;

-- Whether anybody can sign in.
-- name: any
select exists (select 1 from dashboard_user) as found;

-- One user by name.
-- name: by_name
select id, name, role, password_hash from dashboard_user where name = %(name)s;

-- Another password. Whoever is signed in with the old one is signed out.
-- name: set_password
with signed_out as (
    delete from dashboard_session where user_id = (select id from dashboard_user where name = %(name)s)
)
update dashboard_user set password_hash = %(password_hash)s where name = %(name)s returning id;

-- The same password, hashed with today's parameters.
-- name: rehash
update dashboard_user set password_hash = %(password_hash)s where id = %(user_id)s;

-- Remove a user, whose sessions end with it.
-- name: remove
delete from dashboard_user where name = %(name)s returning id;

-- Begin a session.
-- name: open_session
insert into dashboard_session (token_hash, user_id) values (%(token_hash)s, %(user_id)s);

-- Whose session it is, unless it has expired: unused for too long, or simply too old.
-- name: session
select u.name, u.role, s.seen_at < now() - interval '1 minute' as stale
from dashboard_session s join dashboard_user u on u.id = s.user_id
where s.token_hash = %(token_hash)s
  and s.seen_at > now() - make_interval(secs => %(idle_seconds)s)
  and s.created_at > now() - make_interval(secs => %(longest_seconds)s);

-- A session is in use; written once a minute at most.
-- name: touch_session
update dashboard_session set seen_at = now() where token_hash = %(token_hash)s;

-- End a session.
-- name: close_session
delete from dashboard_session where token_hash = %(token_hash)s;

-- Forget sessions that expired.
-- name: forget_sessions
delete from dashboard_session
where seen_at < now() - make_interval(secs => %(idle_seconds)s)
   or created_at < now() - make_interval(secs => %(longest_seconds)s);

-- One at a time of those that try the same name or come from the same address, or as many guesses as there are
-- connections would be counted too late. In one order, so that none waits for the other.
-- name: lock_subjects
select pg_advisory_xact_lock(key)
from (
    select distinct hashtextextended(encode(subject, 'hex'), 13) as key
    from unnest(%(subjects)s::bytea[]) as s (subject)
    order by key
) as keys;

-- How often each subject failed lately.
-- name: failures
select subject, count(*) as failures, min(at) as oldest
from sign_in_failure
where subject = any(%(subjects)s::bytea[]) and at > now() - make_interval(secs => %(window_seconds)s)
group by subject;

-- Note a try as a failure before it is checked; a success takes it back.
-- name: note_failure
insert into sign_in_failure (subject) select unnest(%(subjects)s::bytea[]);

-- A success clears its name.
-- name: clear_name
delete from sign_in_failure where subject = %(subject)s;

-- Of its address it takes back this try only: one's own account must not hide guesses at others.
-- name: take_back
delete from sign_in_failure
where id = (select max(id) from sign_in_failure where subject = %(subject)s);

-- Forget failures that no longer count.
-- name: forget_failures
delete from sign_in_failure where at < now() - make_interval(secs => %(window_seconds)s);

-- The one-time code for the first sign-in; a new one replaces the old.
-- name: set_first_code
insert into first_sign_in (code_hash, expires_at, tries_left)
values (%(code_hash)s, now() + make_interval(secs => %(seconds)s), %(tries)s)
on conflict (only_one) do update
set code_hash = excluded.code_hash, expires_at = excluded.expires_at, tries_left = excluded.tries_left;

-- Use up one try and return the code's hash, unless the code is too old or was tried too often.
-- name: try_first_code
update first_sign_in set tries_left = tries_left - 1
where expires_at > now() and tries_left > 0
returning code_hash;

-- Nobody comes in by a code any more.
-- name: forget_first_code
delete from first_sign_in;
