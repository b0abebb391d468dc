"""The real PgBouncer before the embedded server: many clients, few connections, and it heals whatever dies."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from actors.whatsapp.session import migrate_store
from config.errors import ConfigurationInvalid, StorageUnavailable
from config.home import Home
from config.settings import load_settings
from storage.database import PooledConnections, SingleConnection, ThroughPooler, connect, database_url, whatsmeow_url
from storage.embedded import EmbeddedPostgres
from storage.embedded_layout import Layout
from storage.migrate import migrate
from storage.pgbouncer import PgBouncer, PooledDatabase, locate_pgbouncer, pool_size
from tests.integration.conftest import WaitUntil

PROGRAM = locate_pgbouncer("auto")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed (Debian: pgbouncer; .ci/run does)")
DATABASES = (PooledDatabase("salamander", 15_000), PooledDatabase("whatsmeow", 60_000))
#: With these connections in all, each of the two databases gets this many.
CONNECTIONS, EACH = 16, 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    # So deep that no socket in it could be bound or reached by its own path.
    home = Home(tmp_path_factory.mktemp("deep") / ("d" * 90) / "home")
    home.create()
    return home


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home.postgres)
    server.start()
    for each in DATABASES:
        server.ensure_database(each.name)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pgbouncer(home: Home, server: EmbeddedPostgres) -> Iterator[PgBouncer]:
    assert PROGRAM is not None
    assert server.pid is not None
    pgbouncer = PgBouncer(
        home.postgres, PROGRAM, DATABASES, connections=CONNECTIONS, log_file=home.logs / "pgbouncer.log"
    )
    pgbouncer.start()
    yield pgbouncer
    pgbouncer.stop()
    assert database_url(home, load_settings(home)) == server.url("salamander"), "without it, clients connect directly"


@pytest.fixture
def url(home: Home, pgbouncer: PgBouncer) -> str:
    pgbouncer.start()
    url = database_url(home, load_settings(home))
    assert isinstance(url, ThroughPooler)
    return url


def backends(server: EmbeddedPostgres, database: str = "salamander") -> int:
    with connect(server.url("postgres")) as connection:
        row = connection.execute(
            "select count(*) as n from pg_stat_activity where datname = %s and backend_type = 'client backend'",
            [database],
        ).fetchone()
    assert row is not None
    return int(row["n"])


def test_many_clients_share_few_connections(url: str, server: EmbeddedPostgres) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(url)) for _ in range(120)]
        with ThreadPoolExecutor(40) as threads:
            found = list(threads.map(lambda each: each.execute("select pg_sleep(0.01), 7 as n").fetchone(), clients))
        assert [row and row["n"] for row in found] == [7] * 120
        assert 1 <= backends(server) <= EACH


def test_statements_are_repeated_on_other_connections_without_harm(url: str) -> None:
    """A statement that a driver had prepared would be missing there."""
    database, single = PooledConnections(url, 8), SingleConnection(url)

    def work(number: int) -> int:
        with database.transaction() as connection:
            row = connection.execute("select %s::int + 1 as n, pg_sleep(0.001)", [number]).fetchone()
            assert row is not None
            return int(row["n"])

    with contextlib.closing(database), contextlib.closing(single):
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(200))) == list(range(1, 201))
        for number in range(20):
            with single.transaction() as connection, connection.pipeline():
                connection.execute("select %s::int", [number])


def test_connections_keep_our_options(url: str, home: Home) -> None:
    for each, milliseconds in ((url, "15s"), (whatsmeow_url(home, load_settings(home)), "1min")):
        with connect(each) as connection:
            shown = [
                (connection.execute(f"show {name}".encode()).fetchone() or {})[name]
                for name in ("statement_timeout", "synchronous_commit")
            ]
        assert shown == [milliseconds, "on"]


def test_both_schemas_can_be_migrated_through_it(url: str, home: Home) -> None:
    with ThreadPoolExecutor(3) as threads:
        applied = list(threads.map(migrate, [url] * 3))
    assert sum(map(bool, applied)) >= 1
    migrate_store(whatsmeow_url(home, load_settings(home)))
    with connect(whatsmeow_url(home, load_settings(home))) as connection:
        assert connection.execute("select count(*) from whatsmeow_device").fetchone() == {"count": 0}


def test_only_who_knows_the_password_is_let_in_and_no_file_or_process_tells_it(
    url: str, home: Home, pgbouncer: PgBouncer, server: EmbeddedPostgres
) -> None:
    layout = Layout.of(home.postgres)
    password = layout.password.read_text(encoding="utf-8")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url.replace(password, "wrong"))
    assert {stat.S_IMODE(each.stat().st_mode) for each in layout.pooler.iterdir()} == {0o600}
    assert stat.S_IMODE(layout.pooler.stat().st_mode) == 0o700
    process = psutil.Process(pgbouncer.pid)
    assert password not in " ".join(process.cmdline())
    assert not process.net_connections("inet")
    assert process.uids().real == psutil.Process(server.pid).uids().real


def test_when_it_is_killed_it_is_started_again_and_its_clients_go_on(
    url: str, pgbouncer: PgBouncer, wait_until: WaitUntil
) -> None:
    def works(database: PooledConnections | SingleConnection) -> bool:
        with contextlib.suppress(StorageUnavailable), database.transaction() as connection:
            connection.execute("select 1")
            return True
        return False

    with contextlib.closing(PooledConnections(url, 2)) as database, contextlib.closing(SingleConnection(url)) as single:
        for each in (database, single):
            with each.transaction() as connection:
                connection.execute("select 1")
        assert pgbouncer.pid is not None
        assert pgbouncer.poll() is None
        os.kill(pgbouncer.pid, signal.SIGKILL)
        psutil.Process(pgbouncer.pid).wait(10)
        assert pgbouncer.poll() is not None
        with pytest.raises(StorageUnavailable), single.transaction() as connection:
            connection.execute("select 1")
        pgbouncer.start()
        # A connection of the pool that was used a moment ago is not tried first, so one transaction may fail.
        for each in (database, single):
            wait_until(functools.partial(works, each), "transactions again")


def test_when_the_server_is_killed_clients_go_on_after_its_restart(
    url: str, server: EmbeddedPostgres, wait_until: WaitUntil
) -> None:
    with contextlib.closing(PooledConnections(url, 2)) as database:

        def works() -> bool:
            with contextlib.suppress(StorageUnavailable), database.transaction() as connection:
                connection.execute("select 1")
                return True
            return False

        assert works()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.poll() is not None, "the server to be gone")
        assert not works()
        server.start()
        wait_until(works, "the client to work again")


def test_a_start_that_fails_says_why(home: Home, pgbouncer: PgBouncer, tmp_path: Path) -> None:
    pgbouncer.stop()
    broken = PgBouncer(
        home.postgres, Path("/bin/false"), DATABASES, connections=100, log_file=tmp_path / "pgbouncer.log"
    )
    with pytest.raises(StorageUnavailable, match="PgBouncer did not start"):
        broken.start()


def test_a_program_is_found_or_refused(tmp_path: Path) -> None:
    assert locate_pgbouncer("off") is None
    assert locate_pgbouncer(str(PROGRAM)) == PROGRAM
    with pytest.raises(ConfigurationInvalid, match="no program"):
        locate_pgbouncer(str(tmp_path / "pgbouncer"))


def test_the_connections_are_shared_out() -> None:
    assert pool_size(CONNECTIONS, 2) == EACH
    assert pool_size(100, 2) == 20
    assert pool_size(40, 2) == 15
