"""A fleet behind the real PgBouncer: few connections, and its death costs time and nothing else."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from config.errors import StorageUnavailable
from config.settings import load_settings
from storage.credentials import CredentialSeal
from storage.database import ThroughPooler, connect, database_url
from storage.embedded import EmbeddedPostgres, embedded_url
from storage.embedded_layout import POOLER_PORT
from storage.pgbouncer import PgBouncer, PooledDatabase, locate_pgbouncer
from supervisors.shards_file import read_shards_file
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fleet import Fleet

pytestmark = pytest.mark.skipif(
    locate_pgbouncer("auto") is None, reason="PgBouncer is not installed (Debian: pgbouncer; .ci/run does)"
)
SETTINGS = {"max_shards": 1, "database_connections": 50}
NAMES = ("shop-1", "shop-2", "shop-3")
RECIPIENT = "60199000001"


@pytest.fixture(scope="module", autouse=True)
def devices(daemon: Daemon) -> None:
    for number, name in enumerate(NAMES, start=1):
        daemon.add_paired(name, f"6012000000{number}")


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


def connections(daemon: Daemon) -> list[str]:
    with connect(embedded_url(daemon.home.postgres, "postgres")) as connection:
        rows = connection.execute(
            "select application_name from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return [row["application_name"] for row in rows]


def the_shard(daemon: Daemon) -> str:
    names: list[str] = eventually(
        lambda: [each["name"] for each in read_shards_file(daemon.home)["shards"]], 30, "a shard"
    )
    return names[0]


def test_every_process_goes_through_it(daemon: Daemon, fleet: Fleet) -> None:
    assert isinstance(database_url(daemon.home, load_settings(daemon.home)), ThroughPooler)
    pgbouncer = daemon.process("pgbouncer")
    ids = [fleet.send(name, RECIPIENT, f"{name} says hello") for name in NAMES]
    for message_id in ids:
        daemon.await_message(fleet, message_id, "delivered")
    assert len(connections(daemon)) <= 2 * 20
    assert pgbouncer.is_running()


def test_when_it_is_killed_it_comes_back_and_no_message_is_lost_or_doubled(daemon: Daemon, fleet: Fleet) -> None:
    texts = [f"message {number}" for number in range(30)]
    ids = [fleet.send(NAMES[number % 3], RECIPIENT, text) for number, text in enumerate(texts[:15])]
    killed = daemon.kill("pgbouncer")
    ids += [fleet.send(NAMES[number % 3], RECIPIENT, text) for number, text in enumerate(texts[15:])]
    # The router has a connection of its own, so all of them may be accepted before PgBouncer is back; who reads is not.
    eventually(lambda: _can_read(fleet), 30, "PgBouncer to be back")
    states = [daemon.await_message(fleet, each, "sent delivered read in_doubt", 60)["state"] for each in ids]
    arrived = [text for text in daemon.texts(RECIPIENT) if text in texts]
    assert len(arrived) == len(set(arrived))
    assert len(texts) - len(arrived) <= states.count("in_doubt")
    assert daemon.process("pgbouncer").pid != killed

    def told() -> bool:
        return any(row["what"] == "pgbouncer" and row["outcome"] == "ok" for row in fleet.restarts(limit=50))

    eventually(told, 20, "the restart to be recorded")
    for name in NAMES:
        daemon.await_state(fleet, name, "online")
    assert not [row for row in fleet.restarts(limit=50) if row["what"] in {"shard", "router", "fleet", "system"}]


def _can_read(fleet: Fleet) -> bool:
    try:
        fleet.message_counts()
    except StorageUnavailable:
        return False
    return True


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """A proxy that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_device_that_hangs_delays_no_other(daemon: Daemon, fleet: Fleet, silent_proxy: str) -> None:
    sealed = CredentialSeal(daemon.home.credentials_key).seal({"proxy": silent_proxy})
    hanging = fleet.device("shop-1").id  # the first one to be opened
    _set_proxy(daemon, hanging, sealed)
    try:
        killed = time.time()
        daemon.kill(the_shard(daemon))
        others = ("shop-2", "shop-3")
        eventually(lambda: all(_online_since(fleet, name, killed) for name in others), 60, "the others")
        row = eventually(lambda: _first_failure(fleet, killed), 60, "the device that hangs to give up")
        for name in others:
            assert fleet.device(name).state_since < row["at"]
    finally:
        _set_proxy(daemon, hanging, None)
    refresh = fleet.tell_device("shop-1", "refresh")
    eventually(lambda: fleet.restart_of(refresh), 60, "its refresh")
    daemon.await_state(fleet, "shop-1", "online", 60)


def _set_proxy(daemon: Daemon, device_id: int, sealed: bytes | None) -> None:
    with connect(database_url(daemon.home, load_settings(daemon.home))) as connection:
        connection.execute("update device set proxy = %s where id = %s", [sealed, device_id])


def _online_since(fleet: Fleet, name: str, moment: float) -> bool:
    device = fleet.device(name)
    return device.state == "online" and device.state_since.timestamp() > moment


def _first_failure(fleet: Fleet, moment: float) -> dict[str, Any] | None:
    rows = fleet.restarts(device="shop-1", limit=50)
    return next((row for row in rows if row["outcome"] != "ok" and row["at"].timestamp() > moment), None)


def test_status_tells_how_far_the_fleet_has_come_up(daemon: Daemon, fleet: Fleet) -> None:
    assert daemon.json("status")["coming_up"] == {"tried": 3, "total": 3}
    assert "Coming up" not in daemon.ok("status")
    daemon.simulator.fault("slow")
    try:
        daemon.kill(the_shard(daemon))
        line = eventually(lambda: [each for each in daemon.ok("status").splitlines() if "Coming up" in each], 20, "it")
        assert line[0].endswith("of 3 devices have been connected.")
    finally:
        daemon.simulator.fault("clear")
    eventually(lambda: daemon.json("status")["coming_up"]["tried"] == 3, 60, "all devices")
    assert fleet.device("shop-1").state in {"online", "refreshing"}


def test_a_pgbouncer_of_ones_own_before_a_server_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The databases are created, migrated and used through it, and nothing else is configured."""
    directory = tmp_path_factory.mktemp("own")
    server = EmbeddedPostgres(directory / "pg")
    server.start()
    program = locate_pgbouncer("auto")
    assert program is not None
    names = ("fleet", "library")
    for name in names:
        server.ensure_database(name)
    databases = tuple(PooledDatabase(name, 15_000) for name in names)
    pooler = PgBouncer(server.directory, program, databases, connections=30, log_file=directory / "pgbouncer.log")
    pooler.start()
    fleet_url, library_url = (embedded_url(server.directory, name, port=POOLER_PORT) for name in names)
    settings = {
        "pgbouncer": "yours",
        "database_url": fleet_url,
        "whatsmeow_database_url": library_url,
        "max_shards": 1,
    }
    try:
        with Daemon(directory / "home", settings) as daemon:
            daemon.add_paired("shop", "60120000001")
            with daemon.fleet() as fleet:
                daemon.await_message(fleet, fleet.send("shop", RECIPIENT, "hello"), "delivered")
            assert daemon.texts(RECIPIENT) == ["hello"]
            assert not daemon.home.postgres.exists()
    finally:
        pooler.stop()
        server.stop()
