"""Connections to a real server: they outlive its restarts, and their errors give nothing away."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from config.errors import StorageUnavailable
from config.home import Home
from config.settings import Settings
from storage.database import Database, PooledConnections, SingleConnection, connect, database_url, whatsmeow_url
from storage.embedded import EmbeddedPostgres
from tests.integration.conftest import WaitUntil

PASSWORD = "hunter2-in-the-url"
BAD_URLS = [
    f"postgresql://salamander:{PASSWORD}@127.0.0.1:1/salamander",
    f"postgresql://salamander:{PASSWORD}@127.0.0.1:port/salamander",
    f"postgresql://salamander:{PASSWORD}%zz@127.0.0.1/salamander",
    f"postgresql://salamander@127.0.0.1/salamander?passwort={PASSWORD}",
    f"postgresql://salamander@127.0.0.1/salamander?{PASSWORD}",
    f"salamander {PASSWORD}",
    f"postgresql://salamander:with@{PASSWORD}@127.0.0.1/salamander",
    f"postgresql://salamander:{PASSWORD}/slash@127.0.0.1/salamander",
]
KINDS: dict[str, Callable[[str], Database]] = {
    "single": SingleConnection,
    "pooled": lambda url: PooledConnections(url, 2),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Database]:
    # A pool waits that long for a server that is away.
    monkeypatch.setattr("storage.database._CONNECT_SECONDS", 2)
    return KINDS[request.param]


@pytest.fixture
def database(kind: Callable[[str], Database], postgres: EmbeddedPostgres) -> Iterator[Database]:
    opened = kind(postgres.url("postgres"))
    yield opened
    opened.close()


def answers(database: Database) -> bool:
    try:
        with database.transaction() as connection:
            return connection.execute("select 1 as one").fetchone() == {"one": 1}
    except StorageUnavailable:
        return False


def run(database: Database, statement: str) -> None:
    with database.transaction() as connection:
        connection.execute(statement.encode())


def number_of(database: Database, table: str) -> int:
    with database.transaction() as connection:
        row = connection.execute(f"select count(*) as rows from {table}".encode()).fetchone()  # noqa: S608 - our own name
        assert row is not None
        return int(row["rows"])


def test_a_restarted_server_is_found_again(
    database: Database, postgres: EmbeddedPostgres, wait_until: WaitUntil
) -> None:
    assert answers(database)
    postgres.stop()
    postgres.start()
    wait_until(lambda: answers(database), "the server that was started again answers")


def test_a_killed_server_is_found_again(database: Database, postgres: EmbeddedPostgres, wait_until: WaitUntil) -> None:
    assert answers(database)
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    wait_until(lambda: postgres.poll() is not None, "the killed server is noticed")
    assert not answers(database)
    postgres.start()
    wait_until(lambda: answers(database), "the server that was started again answers")


def test_a_connection_that_the_server_ended_is_replaced(database: Database, wait_until: WaitUntil) -> None:
    with contextlib.suppress(StorageUnavailable), database.transaction() as connection:
        connection.execute("select pg_terminate_backend(pg_backend_pid())")
    wait_until(lambda: answers(database), "a new connection is there")


def test_a_block_that_raises_is_rolled_back_and_the_error_is_its_own(database: Database) -> None:
    run(database, "create table if not exists kept (number int)")
    before = number_of(database, "kept")

    def insert_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute("insert into kept values (1)")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        insert_and_fail()
    assert number_of(database, "kept") == before


def test_a_mistake_of_ours_is_no_outage(database: Database) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        run(database, "select * from nowhere")
    assert answers(database)


def test_threads_share_a_pool_and_wait_for_each_other(postgres: EmbeddedPostgres) -> None:
    pool = PooledConnections(postgres.url("postgres"), 2)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(lambda _: answers(pool), range(40)))
    finally:
        pool.close()


def test_a_closed_database_is_unavailable_or_opened_again(database: Database, kind: Callable[[str], Database]) -> None:
    database.close()
    database.close()
    assert answers(database) == (kind is KINDS["single"])


@pytest.mark.parametrize(
    "url", BAD_URLS, ids=["refused", "port", "percent", "parameter", "flag", "nonsense", "at", "slash"]
)
def test_what_is_wrong_with_a_url_is_told_without_it(url: str) -> None:
    single = SingleConnection(url)
    for use in (lambda: connect(url), lambda: run(single, "select 1")):
        with pytest.raises(StorageUnavailable) as refused:
            use()
        assert PASSWORD not in f"{refused.value} {refused.value.as_dict()}"
        assert url not in str(refused.value)
        assert refused.value.next_step


def test_a_wrong_password_is_told_without_it(postgres: EmbeddedPostgres) -> None:
    url = postgres.url("postgres").replace(":", f":{PASSWORD}", 2).replace(f":{PASSWORD}//", "://")
    with pytest.raises(StorageUnavailable, match="password authentication failed") as refused:
        connect(url)
    assert PASSWORD not in str(refused.value)


def test_a_pool_that_finds_no_server_tells_neither_people_nor_the_log_its_password(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database._CONNECT_SECONDS", 1)
    pool = PooledConnections(BAD_URLS[0], 1)
    try:
        with pytest.raises(StorageUnavailable) as refused:
            run(pool, "select 1")
        assert PASSWORD not in f"{refused.value} {caplog.text}"
    finally:
        pool.close()


def test_a_pool_refuses_a_url_that_cannot_be_read() -> None:
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        PooledConnections(BAD_URLS[2], 1)


def test_a_configured_url_wins_over_the_embedded_server(tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": "postgresql:///a", "whatsmeow_database_url": "postgresql:///b"})
    assert database_url(Home(tmp_path), settings) == "postgresql:///a"
    assert whatsmeow_url(Home(tmp_path), settings) == "postgresql:///b"
