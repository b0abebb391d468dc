"""The pooler on a real server: many clients, few connections, and nothing of one transaction in another."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.pooler import Pooler
from tests.integration.conftest import DEADLINE_SECONDS, NewDatabase, WaitUntil

#: How the pooler's connections are called on the server.
APPLICATION = "salamander store"


class Pooled:
    """A pooler on an event loop in a thread of its own, and a direct way to the same database."""

    def __init__(self, pooler: Pooler, loop: asyncio.AbstractEventLoop, direct: str) -> None:
        self.pooler = pooler
        self.loop = loop
        self.direct = direct
        self.url = self.in_loop(lambda: pooler.url("store"))

    def in_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(DEADLINE_SECONDS)

    def client(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url, autocommit=True, prepare_threshold=None, connect_timeout=10)

    def backends(self) -> list[int]:
        with psycopg.connect(self.direct, autocommit=True) as connection:
            rows = connection.execute(
                "select pid from pg_stat_activity where application_name = %s and datname = current_database()",
                [APPLICATION],
            )
            return [row[0] for row in rows]


@contextmanager
def pooled(direct: str, limit: int, patience: float) -> Iterator[Pooled]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    pooler = Pooler(direct, limit, patience=patience)
    try:
        asyncio.run_coroutine_threadsafe(pooler.start(), loop).result(DEADLINE_SECONDS)
        yield Pooled(pooler, loop, direct)
    finally:
        asyncio.run_coroutine_threadsafe(pooler.stop(), loop).result(DEADLINE_SECONDS)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(DEADLINE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_SECONDS)
        loop.close()


@pytest.fixture
def direct(new_database: NewDatabase) -> str:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table count (who integer primary key, n integer not null)")
    return url


@pytest.fixture
def one(direct: str) -> Iterator[Pooled]:
    with pooled(direct, 1, DEADLINE_SECONDS) as running:
        yield running


def test_thirty_clients_share_one_connection_and_lose_nothing(one: Pooled) -> None:
    def work(who: int) -> int:
        with one.client() as client:
            for number in range(20):
                with client.transaction():
                    client.execute("insert into count values (%s, 0) on conflict do nothing", [who])
                    client.execute("update count set n = n + 1 where who = %s", [who])
                row = client.execute("select n from count where who = %s", [who]).fetchone()
                assert row == (number + 1,)
        return who

    with ThreadPoolExecutor(30) as threads:
        assert sorted(threads.map(work, range(30))) == list(range(30))
    assert len(one.backends()) == 1


def test_no_other_client_comes_between_the_statements_of_a_transaction(one: Pooled) -> None:
    with one.client() as first, one.client() as second, ThreadPoolExecutor(1) as threads:
        with first.transaction():
            first.execute("insert into count values (1, 1)")
            waiting = threads.submit(lambda: second.execute("select n from count where who = 1").fetchone())
            assert first.execute("select n from count where who = 1").fetchone() == (1,)
            assert not waiting.done()
        assert waiting.result(DEADLINE_SECONDS) == (1,)


def test_an_error_ends_neither_the_client_nor_the_connection(one: Pooled) -> None:
    with one.client() as client:
        with pytest.raises(psycopg.errors.UndefinedTable):
            client.execute("select * from nowhere")
        with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
            client.execute("select 1 / 0")
        before = one.backends()
        assert client.execute("select 1").fetchone() == (1,)
    assert one.backends() == before


def test_a_large_answer_arrives_whole(one: Pooled) -> None:
    with one.client() as client:
        row = client.execute("select repeat('x', 5000000)").fetchone()
        assert row == ("x" * 5_000_000,)
        rows = client.execute("select n, repeat('y', 1000) from generate_series(1, 5000) as n").fetchall()
        assert [number for number, _ in rows] == list(range(1, 5001))


def test_a_client_that_vanishes_in_a_transaction_leaves_nothing_of_it(one: Pooled, wait_until: WaitUntil) -> None:
    client = one.client()
    client.execute("begin")
    client.execute("insert into count values (7, 7)")
    os.close(os.dup(client.fileno()))
    with socket.socket(fileno=os.dup(client.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)
    client.close()
    with one.client() as other:
        wait_until(lambda: other.execute("select count(*) from count").fetchone() == (0,), "the row to be gone")
        other.execute("insert into count values (7, 8)")


def test_a_client_in_need_gets_one_more_connection_after_a_while(direct: str) -> None:
    with pooled(direct, 1, 0.2) as running, running.client() as first, running.client() as second:
        with first.transaction():
            first.execute("insert into count values (1, 1)")
            # The second waits for nobody but the pooler, which cannot know.
            assert second.execute("select count(*) from count").fetchone() == (0,)
        assert len(running.backends()) == 2


def test_a_killed_backend_costs_its_client_and_nobody_else(one: Pooled, wait_until: WaitUntil) -> None:
    with one.client() as client:
        client.execute("select 1")
        with psycopg.connect(one.direct, autocommit=True) as killer:
            killer.execute("select pg_terminate_backend(%s)", [one.backends()[0]])
        wait_until(lambda: one.in_loop(lambda: one.pooler.connections) == 0, "the connection to be forgotten")
        assert client.execute("select 2").fetchone() == (2,)


def test_clients_are_served_again_when_the_server_is_back(
    one: Pooled, postgres: EmbeddedPostgres, wait_until: WaitUntil
) -> None:
    with one.client() as client:
        client.execute("select 1")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    wait_until(lambda: postgres.poll() is not None, "the server to die")

    def refused() -> bool:
        try:
            with one.client() as client:
                client.execute("select 1")
        except psycopg.OperationalError as error:
            return "store" in str(error) or "closed" in str(error)
        return False

    wait_until(refused, "clients to be told")
    postgres.start()
    with one.client() as client:
        assert client.execute("select 3").fetchone() == (3,)


def test_whoever_does_not_know_the_secret_is_refused(one: Pooled) -> None:
    guess = psycopg.conninfo.make_conninfo(one.url, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(guess)


def test_what_is_not_the_protocol_is_cut_off_and_hurts_nobody(one: Pooled) -> None:
    port = psycopg.conninfo.conninfo_to_dict(one.url)["port"]
    with socket.create_connection(("127.0.0.1", int(str(port))), timeout=DEADLINE_SECONDS) as stranger:
        stranger.sendall(b"\x80\x04\x95 a pickle perhaps")
        assert stranger.recv(100) == b""
    with one.client() as client:
        assert client.execute("select 1").fetchone() == (1,)


def test_a_server_that_hangs_does_not_stop_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq's own connect keeps the interpreter's lock meanwhile: no heartbeat would leave."""
    monkeypatch.setattr("storage.pooler._CONNECT_SECONDS", 1)
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            pauses.append(time.monotonic() - before)

    async def connect_in_vain(port: int) -> None:
        ticking = asyncio.ensure_future(tick())
        pooler = Pooler(f"postgres://postgres@127.0.0.1:{port}/nothing", 1)
        try:
            with pytest.raises(ConnectionError, match="did not answer"):
                await pooler.welcome()
        finally:
            ticking.cancel()
            await pooler.stop()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(connect_in_vain(silent.getsockname()[1]))
    assert max(pauses) < 0.5
