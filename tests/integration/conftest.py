"""What tests on real components share: a PostgreSQL server of their own, and a database with our tables in it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from storage.database import Connection, Database, SingleConnection, connect
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate

DEADLINE_SECONDS = 20.0

#: Waits for a condition, and fails with the words given when it does not come true in time.
WaitUntil = Callable[[Callable[[], bool], str], None]
#: Creates a database without tables on the module's server and returns its URL.
NewDatabase = Callable[[], str]


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running server for the tests of one module; whoever stops it starts it again."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "pg")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def new_database(postgres: EmbeddedPostgres) -> NewDatabase:
    numbers = itertools.count(1)

    def create() -> str:
        name = f"database_{next(numbers)}"
        postgres.ensure_database(name)
        return postgres.url(name)

    return create


@pytest.fixture(scope="module")
def storage_url(new_database: NewDatabase) -> str:
    """The URL of a database that has our tables."""
    url = new_database()
    migrate(url)
    return url


@pytest.fixture
def database(storage_url: str) -> Iterator[Database]:
    single = SingleConnection(storage_url)
    yield single
    single.close()


@pytest.fixture
def connection(storage_url: str) -> Iterator[Connection]:
    """A connection on which each statement is committed at once."""
    with connect(storage_url) as opened:
        yield opened
