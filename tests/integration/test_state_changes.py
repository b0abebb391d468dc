"""State changes of a shard on a real server: together in one statement, each device's in order, each with its row."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from actors.whatsapp.state_changes import StateChanges
from storage import devices
from storage.database import PooledConnections
from storage.devices import Device, StateChange
from storage.migrate import migrate
from tests.integration.conftest import NewDatabase


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[PooledConnections]:
    url = new_database()
    migrate(url)
    with contextlib.closing(PooledConnections(url, 1)) as database:
        yield database


@pytest.fixture
def ids(database: PooledConnections) -> list[int]:
    with database.transaction() as connection:
        return [devices.add(connection, name=f"shop-{number}", platform=None) for number in range(30)]


class Statements:
    """Runs storage work in a thread, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, work: Callable[[], Any]) -> Any:
        self.count += 1
        return await asyncio.to_thread(work)


def recorded(
    database: PooledConnections, run: Callable[[Callable[[], Any]], Awaitable[Any]], changes: list[StateChange]
) -> list[Device | BaseException | None]:
    async def main() -> list[Any]:
        states = StateChanges(database, run)
        return await asyncio.gather(*(states.record(change) for change in changes), return_exceptions=True)

    return asyncio.run(main())


def told(database: PooledConnections) -> list[tuple[int, dict[str, Any]]]:
    with database.transaction() as connection:
        rows = connection.execute("select device_id, body from event where kind = 'state' order by id")
        return [(row["device_id"], row["body"]) for row in rows]


def test_what_comes_at_the_same_moment_is_one_statement_and_each_gets_its_own_row(
    database: PooledConnections, ids: list[int]
) -> None:
    statements = Statements()
    changes = [StateChange(each, "online", "connected", f"Device {each}.", told_as=f"{each}") for each in ids]
    rows = recorded(database, statements.run, changes)
    assert [(row.id, row.state, row.reason) for row in rows if isinstance(row, Device)] == [
        (each, "online", f"Device {each}.") for each in ids
    ]
    assert statements.count <= 2  # the first may go alone
    assert sorted(told(database), key=lambda each: each[0]) == [
        (each, {"state": "online", "code": "connected", "reason": f"Device {each}."}) for each in ids
    ]


def test_the_changes_of_one_device_are_recorded_in_their_order(database: PooledConnections, ids: list[int]) -> None:
    states = ["connecting", "refreshing", "online", "reconnecting", "banned"]
    changes = [StateChange(ids[0], state, state, "", told_as=f"{n}") for n, state in enumerate(states)]
    rows = recorded(database, Statements().run, changes)
    assert [row.state for row in rows if isinstance(row, Device)] == states
    assert [body["state"] for _, body in told(database)] == states


def test_what_is_not_told_makes_no_event_and_a_removed_device_has_no_row(
    database: PooledConnections, ids: list[int]
) -> None:
    with database.transaction() as connection:
        devices.remove(connection, ids[1])
    rows = recorded(database, Statements().run, [StateChange(each, "online", "connected", "") for each in ids[:2]])
    assert isinstance(rows[0], Device)
    assert rows[1] is None
    assert told(database) == []


def test_a_change_done_twice_is_told_once(database: PooledConnections, ids: list[int]) -> None:
    async def twice(work: Callable[[], Any]) -> Any:
        await asyncio.to_thread(work)
        return await asyncio.to_thread(work)

    recorded(database, twice, [StateChange(ids[0], "online", "connected", "", told_as="1")])
    assert len(told(database)) == 1


def test_one_that_cannot_be_recorded_keeps_no_other_from_it(database: PooledConnections, ids: list[int]) -> None:
    wrong = StateChange(ids[1], "online", "", "no text of PostgreSQL's: \0")
    rows = recorded(
        database,
        Statements().run,
        [StateChange(ids[0], "online", "", ""), wrong, StateChange(ids[2], "online", "", "")],
    )
    assert isinstance(rows[1], psycopg.DataError)
    assert [row.state for row in (rows[0], rows[2]) if isinstance(row, Device)] == ["online", "online"]
