"""Received events on a real server: each once, in order, whatever a stranger puts into them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from storage import devices, events
from storage.database import Connection, connect
from storage.events import Event, Place, Wanted
from tests.support.outbox import new_device


@pytest.fixture
def device_id(connection: Connection) -> int:
    return new_device(connection)


def name_of(connection: Connection, device_id: int) -> str:
    found = devices.by_id(connection, device_id)
    assert found is not None
    return found.name


def test_a_repeated_event_is_one_row_and_the_first_one_stays(connection: Connection, device_id: int) -> None:
    assert events.record(connection, device_id, [Event("message", "A", {"text": "first"})]) == ["A"]
    repeated = [Event("message", "A", {"text": "again"}), Event("message", "B", {"text": "second"})]
    assert events.record(connection, device_id, repeated) == ["B"]
    rows = events.latest(connection, device=name_of(connection, device_id))
    assert [row["body"]["text"] for row in rows] == ["first", "second"]
    assert events.record(connection, device_id, []) == []


def test_the_same_id_of_another_device_or_kind_is_another_event(connection: Connection, device_id: int) -> None:
    neighbour = new_device(connection)
    for owner, kind in ((device_id, "message"), (neighbour, "message"), (device_id, "receipt")):
        assert events.record(connection, owner, [Event(kind, "A", {})]) == ["A"]


def test_the_same_event_at_the_same_moment_is_one_row(storage_url: str, connection: Connection, device_id: int) -> None:
    def record(_: int) -> int:
        with connect(storage_url) as own:
            return len(events.record(own, device_id, [Event("message", "A", {})]))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(record, range(8))) == 1


def test_events_are_read_on_from_where_one_was(connection: Connection, device_id: int) -> None:
    name = name_of(connection, device_id)
    events.record(connection, device_id, [Event("state", str(number), {"number": number}) for number in range(10)])
    newest = events.latest(connection, device=name, limit=3)
    assert [row["body"]["number"] for row in newest] == [7, 8, 9]
    first = events.latest(connection, device=name)[0]["id"]
    following = events.after(connection, first, device=name, limit=4)
    assert [row["body"]["number"] for row in following] == [1, 2, 3, 4]
    assert events.after(connection, newest[-1]["id"], device=name) == []
    assert {row["device"] for row in events.after(connection, 0, limit=10_000)} >= {name}


@pytest.mark.parametrize(
    "text", ["a\x00b", "half a pair \ud83d", "\\u0000", "x" * 1_000_000, '"}; drop table event; --', "🎉\u202e"]
)
def test_whatever_a_stranger_writes_is_recorded(connection: Connection, device_id: int, text: str) -> None:
    message = Event("message", text, {"text": text, "nested": [{text: text}]})
    [key] = events.record(connection, device_id, [message])
    assert len(key) <= 255
    assert events.record(connection, device_id, [message]) == []
    [row] = events.latest(connection, device=name_of(connection, device_id))
    assert row["body"]["text"] == text.replace("\x00", "\ufffd").replace("\ud83d", "?")


def test_long_ids_that_begin_alike_are_still_different(connection: Connection, device_id: int) -> None:
    alike = [Event("message", "x" * 5000 + end, {}) for end in ("a", "b")]
    assert len(set(events.record(connection, device_id, alike))) == 2


def test_a_reader_misses_no_event_whose_transaction_ends_late(
    storage_url: str, connection: Connection, device_id: int
) -> None:
    wanted = Wanted((device_id,))
    events.record(connection, device_id, [Event("message", "first", {})])
    (begin,) = events.stream(connection, None, wanted, 1)
    with connect(storage_url) as late, late.transaction():
        events.record(late, device_id, [Event("message", "late", {})])
        events.record(connection, device_id, [Event("message", "early", {})])
        # Its id is higher than that of the one that is still under way: it has to wait for that.
        assert events.stream(connection, Place.of(begin), wanted, 10) == []
    told = events.stream(connection, Place.of(begin), wanted, 10)
    assert [row["id"] for row in told] == [begin["id"] + 1, begin["id"] + 2]
    assert [Place.of(row) for row in told] == sorted(Place.of(row) for row in told)
    assert events.stream(connection, Place.of(told[-1]), wanted, 10) == []


def test_a_restored_backup_goes_on_behind_its_newest_event(connection: Connection, device_id: int) -> None:
    wanted = Wanted((device_id,))
    events.record(connection, device_id, [Event("message", "of the old server", {})])
    assert not events.keep_clock(connection)
    connection.execute("update event set moment = moment + 1000000 where device_id = %s", [device_id])
    newest = Place.of(connection.execute("select moment, id from event order by moment desc limit 1").fetchone() or {})
    events.record(connection, device_id, [Event("message", "unseen", {})])
    assert events.stream(connection, newest, wanted, 10) == []
    assert events.keep_clock(connection)
    assert not events.keep_clock(connection)
    events.record(connection, device_id, [Event("message", "of the new server", {})])
    (told,) = events.stream(connection, newest, wanted, 10)
    assert told["moment"] > newest.moment
