"""A fleet behind the real PgBouncer: few connections, and its death costs time and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from config.settings import load_settings
from storage.database import ThroughPooler, connect, database_url
from storage.embedded import embedded_url
from storage.pgbouncer import locate_pgbouncer
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fleet import Fleet

pytestmark = pytest.mark.skipif(
    locate_pgbouncer("auto") is None, reason="PgBouncer is not installed (Debian: pgbouncer; .ci/run does)"
)
SETTINGS = {"max_shards": 2, "database_connections": 50}
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


def test_status_tells_how_far_the_fleet_has_come_up(daemon: Daemon, fleet: Fleet) -> None:
    assert daemon.json("status")["coming_up"] == {"tried": 3, "total": 3}
    assert "Coming up" not in daemon.ok("status")
    daemon.simulator.fault("slow")
    try:
        daemon.kill("shard-1")
        line = eventually(lambda: [each for each in daemon.ok("status").splitlines() if "Coming up" in each], 20, "it")
        assert line[0].endswith("of 3 devices have been connected.")
    finally:
        daemon.simulator.fault("clear")
    eventually(lambda: daemon.json("status")["coming_up"]["tried"] == 3, 60, "all devices")
    assert fleet.device("shop-1").state in {"online", "refreshing"}
