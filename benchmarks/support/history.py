"""Years of history at once: an outbox filled with finished messages, and all that belongs to them, in minutes."""

from __future__ import annotations

from config.errors import SalamanderError
from storage.database import Connection

#: Filling with indexes in place would take hours; these are dropped first and built afterwards.
_SECONDARY = """
select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
from pg_index i
where i.indrelid = any(array['outbox', 'attempt', 'transition', 'event']::regclass[])
  and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid)
"""
#: The one constraint whose index is in the way, too.
_EVENT_KEY = (
    "alter table event add constraint event_device_id_kind_external_id_key unique (device_id, kind, external_id)"
)

#: Finished messages with the states of ordinary ones, spread evenly over the devices and the last 90 days.
_MESSAGES = """
insert into outbox (device_id, recipient, kind, body, idempotency_key, content_digest, state, reason_code, reason,
                    attempts, external_id, created_at, updated_at, not_before)
select d.ids[1 + n %% array_length(d.ids, 1)], '6019' || lpad((n %% 100000)::text, 7, '0'), 'text',
       'Your order ' || n || ' is on its way and arrives tomorrow between nine and twelve.', 'history-' || n,
       decode(md5(n::text) || md5(n::text), 'hex'), s.state, 'receipt', '', 1, 'WA' || n, t.at, t.at, t.at
from generate_series(%(first)s::bigint, %(last)s::bigint) as n
cross join (select array_agg(id order by id) as ids from device) d
cross join lateral (
    select case when n %% 100 < 60 then 'read' when n %% 100 < 85 then 'delivered' when n %% 100 < 95 then 'sent'
                when n %% 100 < 98 then 'failed' when n %% 100 < 99 then 'expired' else 'cancelled' end as state
) s
cross join lateral (
    select now() - interval '90 days' * ((%(last)s::bigint - n)::float8 / %(last)s::bigint) as at
) t
"""
_ATTEMPTS = """
insert into attempt (message_id, device_id, number, owner, secret, started_at, ended_at, outcome)
select id, device_id, 1, 'history', decode(md5(id::text) || md5('b' || id), 'hex'), created_at, updated_at, 'sent'
from outbox where id > %(after)s
"""
_TRANSITIONS = """
insert into transition (message_id, at, state, reason_code)
select o.id, o.created_at, s.state, 'history'
from outbox o cross join unnest(array['queued', 'sending', 'sent']) as s (state) where o.id > %(after)s
"""
_EVENTS = """
insert into event (at, device_id, kind, external_id, body)
select created_at, device_id, 'receipt', external_id || ':delivered', '{"stage": "delivered"}'
from outbox where id > %(after)s
"""


def fill_history(connection: Connection, rows: int) -> None:
    """Add finished messages until the outbox holds ``rows``.

    Args:
        connection: a superuser's, in no transaction; there are devices already.

    Raises:
        SalamanderError: the outbox holds more already.
    """
    found = connection.execute("select count(*) as rows, coalesce(max(id), 0) as last from outbox").fetchone()
    assert found is not None
    missing = rows - int(found["rows"])
    if missing < 0:
        raise SalamanderError("The outbox holds more rows already.", "Fill a fresh one.")
    connection.execute("set statement_timeout = 0")
    connection.execute("set session_replication_role = replica")  # no look at foreign keys, row by row
    connection.execute("set maintenance_work_mem = '1GB'")
    connection.execute("set synchronous_commit = off")
    dropped = connection.execute(_SECONDARY).fetchall()
    for index in dropped:
        connection.execute(f"drop index {index['name']}".encode())
    connection.execute("alter table event drop constraint event_device_id_kind_external_id_key")
    first = int(found["last"]) + 1
    connection.execute(_MESSAGES, {"first": first, "last": first + missing - 1})
    for statement in (_ATTEMPTS, _TRANSITIONS, _EVENTS):
        connection.execute(statement, {"after": found["last"]})
    connection.execute(_EVENT_KEY)
    for index in dropped:
        connection.execute(index["definition"].encode())
    connection.execute("reset session_replication_role")
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def add_lanes(connection: Connection, devices: int) -> None:
    """Add WhatsApp devices, with nothing behind them, until there are so many."""
    connection.execute(
        "insert into device (name, jid, state) select 'lane-' || n, n || ':1@s.whatsapp.net', 'online'"
        " from generate_series((select count(*) + 1 from device), %(devices)s::bigint) as n",
        {"devices": devices},
    )
    connection.execute("analyze device")
