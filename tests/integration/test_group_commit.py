"""Group commit on a real server: many in one transaction, each with its own outcome, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from actors.whatsapp.group_commit import GroupCommit
from config.errors import Refused, StorageUnavailable
from storage.database import Connection, PooledConnections
from tests.integration.conftest import NewDatabase


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[PooledConnections]:
    with contextlib.closing(PooledConnections(new_database(), 1)) as database:
        with database.transaction() as connection:
            connection.execute("create table note (id serial, number int unique, xid text)")
        yield database


async def in_thread(work: Callable[[], list[Any]]) -> list[Any]:
    return await asyncio.to_thread(work)


def note(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute("insert into note (number, xid) values (%s, pg_current_xact_id()::text)", [number])
        return number

    return work


def notes(database: PooledConnections) -> list[tuple[int, str]]:
    with database.transaction() as connection:
        return [(row["number"], row["xid"]) for row in connection.execute("select number, xid from note order by id")]


def together(
    database: PooledConnections,
    *works: Callable[[Connection], Any],
    run: Callable[[Callable[[], list[Any]]], Awaitable[list[Any]]] = in_thread,
) -> list[Any]:
    async def main() -> list[Any]:
        group = GroupCommit(database, "tests", run)
        return await asyncio.gather(*(group.store(work) for work in works), return_exceptions=True)

    return asyncio.run(main())


def test_what_comes_at_the_same_moment_is_committed_together_and_in_order(database: PooledConnections) -> None:
    assert together(database, *map(note, range(250))) == list(range(250))
    stored = notes(database)
    assert [number for number, _ in stored] == list(range(250))
    assert len({xid for _, xid in stored}) <= 4


def test_one_that_fails_takes_nobody_along(database: PooledConnections) -> None:
    def refused(connection: Connection) -> None:
        note(100)(connection)
        raise Refused("No.", "Do not.", code="no")

    outcomes = together(database, note(1), refused, note(2), note(1), note(3))
    assert [outcomes[0], outcomes[2], outcomes[4]] == [1, 2, 3]
    assert isinstance(outcomes[1], Refused)
    assert "duplicate key" in str(outcomes[3])
    assert [number for number, _ in notes(database)] == [1, 2, 3]


def test_whoever_stops_waiting_stops_nobody(database: PooledConnections) -> None:
    async def main() -> int:
        group = GroupCommit(database, "tests", in_thread)
        impatient = asyncio.ensure_future(group.store(note(1)))
        await asyncio.sleep(0)
        impatient.cancel()
        return await group.store(note(2))

    assert asyncio.run(main()) == 2
    assert [number for number, _ in notes(database)] == [1, 2]


def test_an_outage_that_is_waited_for_costs_only_time(database: PooledConnections) -> None:
    failures = iter([True, True])

    async def patient(work: Callable[[], list[Any]]) -> list[Any]:
        while next(failures, False):
            with contextlib.suppress(StorageUnavailable):
                raise StorageUnavailable("It is away.")
        return await asyncio.to_thread(work)

    assert together(database, note(1), note(2), run=patient) == [1, 2]


def test_an_error_of_the_whole_is_told_to_all_and_the_next_works(database: PooledConnections) -> None:
    calls = 0

    async def once_broken(work: Callable[[], list[Any]]) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("no thread")
        return await asyncio.to_thread(work)

    async def main() -> list[Any]:
        group = GroupCommit(database, "tests", once_broken)
        first = await asyncio.gather(group.store(note(1)), group.store(note(2)), return_exceptions=True)
        return [*map(type, first), await group.store(note(3))]

    assert asyncio.run(main()) == [RuntimeError, RuntimeError, 3]
