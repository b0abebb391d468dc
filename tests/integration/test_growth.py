"""Costs that must not grow: with thousands waiting, each statement on the way of a message reads a handful of rows."""

from __future__ import annotations

from typing import Any

import pytest

from storage.database import Connection
from storage.sql import queries
from tests.support.outbox import accept_texts, new_device

_BACKLOG = 3000
#: Rows that one statement may read of the tables that grow.
_FEW = 20
_GROWING = frozenset({"outbox", "attempt", "transition"})


@pytest.fixture(scope="module")
def _analyzed() -> list[bool]:
    return []


@pytest.fixture
def lane(connection: Connection, _analyzed: list[bool]) -> int:
    """A device with one message among thousands, of which the server's statistics know nothing yet."""
    if not _analyzed:
        neighbour = new_device(connection)
        accept_texts(connection, neighbour, *(str(number) for number in range(50)))
        connection.execute("update outbox set state = 'read'")
        connection.execute("analyze")
        accept_texts(connection, neighbour, *(str(number) for number in range(_BACKLOG)))
        accept_texts(connection, neighbour, *(str(number) for number in range(_BACKLOG)))
        connection.execute("update outbox set state = 'in_doubt' where state = 'queued' and id % 2 = 0")
        _analyzed.append(True)
    device_id = new_device(connection)
    accept_texts(connection, device_id, "hello")
    return device_id


def rows_read(connection: Connection, statement: str, arguments: dict[str, Any]) -> int:
    """Return how many rows of the growing tables a statement reads; what it does is taken back."""
    with connection.transaction(force_rollback=True):
        row = connection.execute(f"explain (analyze, format json) {statement}".encode(), arguments).fetchone()
    assert row is not None
    return _read_by(row["QUERY PLAN"][0]["Plan"])


def _read_by(node: dict[str, Any]) -> int:
    own = 0
    if node.get("Relation Name") in _GROWING and node["Node Type"] != "ModifyTable":
        found = (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        )
        own = round(found * node["Actual Loops"])
    return own + sum(_read_by(child) for child in node.get("Plans", []))


def test_a_claim_reads_its_own_lane_alone(connection: Connection, lane: int) -> None:
    arguments = {"device_id": lane, "owner": "o", "secret": b"claim", "paced": True, "lowest": -32768}
    assert 0 < rows_read(connection, queries("outbox")["claim"], arguments) <= _FEW


def test_a_claim_of_many_lanes_reads_these_alone(connection: Connection, lane: int) -> None:
    arguments = {"device_ids": [lane], "secrets": [b"lanes"], "owner": "o"}
    assert 0 < rows_read(connection, queries("dispatch")["claim"], arguments) <= _FEW


def test_looking_for_work_probes_each_lane_once(connection: Connection, lane: int) -> None:
    assert 0 < rows_read(connection, queries("outbox")["lanes_with_work"], {"device_ids": [lane]}) <= _FEW
    assert rows_read(connection, queries("outbox")["expire"], {"device_ids": [lane]}) <= _FEW


def test_an_outcome_is_recorded_without_a_look_at_all_doubts(connection: Connection, lane: int) -> None:
    row = connection.execute("update outbox set state = 'sending' where device_id = %s returning id", [lane]).fetchone()
    assert row is not None
    arguments = {
        "message_id": row["id"],
        "state": "sent",
        "code": "sent",
        "reason": "",
        "external_id": "WA-1",
        "from_states": ["sending", "in_doubt"],
        "attempt_id": 1,
    }
    assert 0 < rows_read(connection, queries("outbox")["settle"], arguments) <= _FEW


def test_an_opt_out_reads_what_waits_for_that_number_alone(connection: Connection, lane: int) -> None:
    connection.execute("update outbox set recipient = '60190000001' where device_id = %s", [lane])
    numbers = ["60190000001"]
    arguments = {"numbers": numbers, "given": numbers, "source": "operator", "device_id": None, "word": ""}
    assert 0 < rows_read(connection, queries("care")["opt_out"], arguments) <= _FEW


def test_a_list_reads_hardly_more_than_it_shows(connection: Connection, lane: int) -> None:
    connection.execute("update outbox set state = 'failed' where device_id = %s", [lane])
    device = connection.execute("select name from device where id = %s", [lane]).fetchone()
    assert device is not None
    connection.execute("analyze outbox")
    statements = queries("outbox")
    assert rows_read(connection, statements["list"], {"state": None, "limit": 10}) <= _FEW
    assert rows_read(connection, statements["list"], {"state": "failed", "limit": 10}) <= _FEW
    of_device = {"device": device["name"], "state": None, "limit": 10}
    assert 0 < rows_read(connection, statements["list_of_device"], of_device) <= _FEW


def test_a_backlog_is_counted_without_a_look_at_history(connection: Connection, lane: int) -> None:
    connection.execute("update outbox set state = 'read' where device_id <> %s", [lane])
    connection.execute("vacuum analyze outbox")
    try:
        assert rows_read(connection, queries("devices")["backlog"], {}) <= _FEW
    finally:
        connection.execute("update outbox set state = 'in_doubt' where device_id <> %s", [lane])
