"""Retention on a real server: what goes, what stays, and who waits for whom."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterator

import pytest

from storage import care, events, handled
from storage.database import Connection, Database, SingleConnection, connect
from storage.events import Event
from storage.outbox import FINAL_STATES, Accepted, Outbox
from storage.restarts import Restart, RestartJournal
from storage.retention import Retention
from tests.support.outbox import accept, accept_texts, claim_next, new_device, state_of, text

DAYS = 30
TABLES = ("outbox", "attempt", "transition", "message_name", "event", "restart", "number_check", "handled_request")


@pytest.fixture(autouse=True)
def _empty(connection: Connection) -> None:
    for table in reversed(TABLES):
        connection.execute(f"delete from {table}".encode())  # noqa: S608 - the names above


@pytest.fixture
def other(storage_url: str) -> Iterator[Connection]:
    with connect(storage_url) as opened:
        yield opened


def remove_all(database: Database, batch: int = 3) -> Retention:
    retention = Retention(database, DAYS, batch)
    while retention.step():
        pass
    return retention


def age(connection: Connection, days: int) -> None:
    """Make everything there is ``days`` older."""
    for table, columns in {
        "outbox": ("created_at", "updated_at"),
        "event": ("at",),
        "restart": ("at",),
        "number_check": ("checked_at",),
        "handled_request": ("at",),
    }.items():
        moved = ", ".join(f"{column} = {column} - make_interval(days => %(days)s)" for column in columns)
        connection.execute(f"update {table} set {moved}".encode(), {"days": days})  # noqa: S608 - the names above


def rows(connection: Connection) -> dict[str, int]:
    found = {}
    for table in TABLES:
        row = connection.execute(f"select count(*) as rows from {table}".encode()).fetchone()  # noqa: S608
        assert row is not None
        found[table] = row["rows"]
    return found


def finish(connection: Connection, message_id: int, state: str) -> None:
    connection.execute("update outbox set state = %s where id = %s", [state, message_id])


def test_finished_messages_go_with_all_that_belongs_to_them(connection: Connection, database: Database) -> None:
    device_id, sender = new_device(connection), Outbox(database, "owner")
    accept_texts(connection, device_id, *(str(number) for number in range(len(FINAL_STATES))))
    for state in sorted(FINAL_STATES):
        claim = claim_next(sender, device_id)
        sender.sent(claim, f"WA-{state}")
        finish(connection, claim.message_id, state)
        connection.execute(
            "insert into message_name (device_id, name, external_id) values (%s, %s, %s)",
            [device_id, f"other-{state}", f"WA-{state}"],
        )
    events.record(connection, device_id, [Event("receipt", f"{number}:read", {}) for number in range(7)])
    RestartJournal(database).record(
        Restart(what="device", name="d", cause_code="c", cause="C.", attempt=1, tried="t", outcome="ok", seconds=1.0)
    )
    care.note_check(connection, "60123456789", on_whatsapp=True)
    handled.note(connection, "request", "answer")
    age(connection, DAYS + 1)

    removed = remove_all(database).removed

    assert rows(connection) == dict.fromkeys(TABLES, 0)
    assert removed == {"messages": len(FINAL_STATES), "events": 7, "restarts": 1, "number_checks": 1}


def test_what_is_young_unfinished_or_in_doubt_stays(connection: Connection, database: Database) -> None:
    device_id, sender = new_device(connection), Outbox(database, "owner")
    doubtful, sending, queued, old = accept_texts(connection, device_id, "doubtful", "sending", "queued", "old")
    sender.in_doubt(claim_next(sender, device_id), "no_answer", "No answer.", "WA-doubt")
    claim_next(sender, device_id)
    finish(connection, old, "cancelled")
    age(connection, DAYS * 100)
    [young] = accept_texts(connection, device_id, "young")
    finish(connection, young, "cancelled")
    events.record(connection, device_id, [Event("receipt", "young", {})])

    remove_all(database)

    left = [row["id"] for row in connection.execute("select id from outbox order by id")]
    assert left == [doubtful, sending, queued, young]
    assert [state_of(connection, each) for each in left] == ["in_doubt", "sending", "queued", "cancelled"]
    assert rows(connection)["attempt"] == 2
    assert rows(connection)["event"] == 1


def test_a_message_that_changed_lately_stays_though_it_is_old(connection: Connection, database: Database) -> None:
    first, second = accept_texts(connection, new_device(connection), "first", "second")
    finish(connection, first, "sent")
    finish(connection, second, "sent")
    age(connection, DAYS + 1)
    connection.execute("update outbox set state = 'read', updated_at = now() where id = %s", [first])

    remove_all(database)

    assert [row["id"] for row in connection.execute("select id from outbox")] == [first]


def test_a_key_protects_for_as_long_as_its_row_stands(connection: Connection, database: Database) -> None:
    device_id, key = new_device(connection), secrets.token_hex(8)
    [first] = accept(connection, text(device_id, idempotency_key=key))
    finish(connection, first.id, "sent")
    age(connection, DAYS - 1)
    remove_all(database)
    assert accept(connection, text(device_id, idempotency_key=key)) == [Accepted(first.id, repeated=True)]

    age(connection, 2)
    remove_all(database)

    [again] = accept(connection, text(device_id, idempotency_key=key))
    assert again.id > first.id
    assert again == Accepted(again.id)


def test_each_step_is_bounded_and_a_round_passes_what_must_stay(connection: Connection, database: Database) -> None:
    ids = accept_texts(connection, new_device(connection), *(str(number) for number in range(10)))
    for message_id in ids[5:]:
        finish(connection, message_id, "sent")
    age(connection, DAYS + 1)
    retention = Retention(database, DAYS, batch=2)
    seen = []
    while retention.step():
        seen.append(retention.removed["messages"])

    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(seen))
    assert [row["id"] for row in connection.execute("select id from outbox order by id")] == ids[:5]


def test_a_message_that_is_being_changed_is_passed_by_and_goes_in_the_next_round(
    connection: Connection, other: Connection, database: Database
) -> None:
    busy, idle = accept_texts(connection, new_device(connection), "busy", "idle")
    finish(connection, busy, "sent")
    finish(connection, idle, "sent")
    age(connection, DAYS + 1)
    with other.transaction():
        other.execute("select 1 from outbox where id = %s for update", [busy])
        remove_all(database)
        assert [row["id"] for row in connection.execute("select id from outbox")] == [busy]

    remove_all(database)

    assert rows(connection)["outbox"] == 0


def test_of_several_hosts_one_removes_at_a_time_and_none_waits(
    connection: Connection, storage_url: str, database: Database
) -> None:
    [message_id] = accept_texts(connection, new_device(connection), "old")
    finish(connection, message_id, "sent")
    age(connection, DAYS + 1)
    working, done = threading.Event(), threading.Event()

    def occupy() -> None:
        single = SingleConnection(storage_url)
        with single.transaction() as own:
            own.execute("select pg_advisory_xact_lock(5201315)")
            working.set()
            done.wait(20)
        single.close()

    neighbour = threading.Thread(target=occupy)
    neighbour.start()
    working.wait(20)
    try:
        assert remove_all(database).removed["messages"] == 0
    finally:
        done.set()
        neighbour.join(20)
    assert remove_all(database).removed["messages"] == 1
