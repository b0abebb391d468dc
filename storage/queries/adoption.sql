-- Queries on another tool's database, and on whatsmeow's own as the place to copy to.

-- Who else is connected to this database. Who may not see a column of another user's gets null for it.
-- name: others_connected
select pid, usename, coalesce(application_name, '') as application,
       coalesce(host(client_addr), 'a local socket') as client
from pg_stat_activity
where datname = current_database() and usename is not null and pid <> all(%(own)s)
  and coalesce(backend_type, 'client backend') = 'client backend'
order by pid;

-- How often whatsmeow's tables were written to, ever.
-- name: writes
select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) as writes
from pg_stat_user_tables
where relname like 'whatsmeow\_%%';

-- The columns of whatsmeow's tables and of the original system's, where tables without a schema are looked for.
-- name: tables
select table_name::text, array_agg(column_name::text)
from information_schema.columns
where (table_name like 'whatsmeow\_%%' or table_name = %(original)s)
  and to_regclass(quote_ident(table_name)) = to_regclass(quote_ident(table_schema) || '.' || quote_ident(table_name))
group by table_name;

-- The columns of our own whatsmeow tables: their types, and whether a row may do without them.
-- name: own_columns
select table_name::text, column_name::text, data_type::text, is_nullable = 'YES' or column_default is not null
from information_schema.columns
where table_schema = 'public' and table_name like 'whatsmeow\_%%'
order by table_name, ordinal_position;

-- The version of our own whatsmeow tables.
-- name: own_version
select version, coalesce(compat, version) from whatsmeow_version;

-- Forget what an interrupted adoption left of a companion; the rest cascades from the device's row.
-- name: forget_companion
delete from whatsmeow_device where jid = %(jid)s;

-- The one table of a companion that does not.
-- name: forget_privacy_tokens
delete from whatsmeow_privacy_tokens where our_jid = %(jid)s;

-- A place for LIDs on their way.
-- name: stage_lids
create temporary table adopted_lid (lid text not null, pn text not null) on commit drop;

-- Learn whom LIDs belong to, where that is not known yet.
-- name: learn_lids
insert into whatsmeow_lid_map (lid, pn) select lid, pn from adopted_lid on conflict do nothing;
