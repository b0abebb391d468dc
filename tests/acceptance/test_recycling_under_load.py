"""A shard is recycled while messages flow: its devices move one by one, and nothing is lost, doubled or reordered."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from supervisors.shards_file import read_shards_file
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fleet import Fleet

SETTINGS = {"max_shards": 1, "heartbeat_seconds": 0.5, "backoff_first_seconds": 0.2}
NAMES = tuple(f"shop-{number}" for number in range(1, 6))


@pytest.fixture(scope="module", autouse=True)
def devices(daemon: Daemon) -> None:
    for number, name in enumerate(NAMES, start=1):
        daemon.add_paired(name, f"6012000000{number}")


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


class Traffic:
    """Messages from every device to a number of its own, one after the other, in a thread."""

    def __init__(self, daemon: Daemon, prefix: str) -> None:
        self._daemon = daemon
        self._prefix = prefix
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent: dict[str, list[str]] = {name: [] for name in NAMES}
        self.ids: list[int] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def recipient(self, name: str) -> str:
        return f"6019{self._prefix}{name[-1]:0>4}"

    def _send(self) -> None:
        with self._daemon.fleet() as fleet:
            while not self._enough.is_set():
                for name in NAMES:
                    text = f"{name} {len(self.sent[name])}"
                    self.ids.append(fleet.send(name, self.recipient(name), text))
                    self.sent[name].append(text)
                time.sleep(0.05)

    def await_outcomes(self, fleet: Fleet, settled: set[str]) -> dict[int, Any]:
        def look() -> dict[int, Any] | None:
            rows = fleet.states(self.ids)
            return rows if all(row["state"] in settled for row in rows.values()) else None

        return eventually(look, 60, "every message to have an outcome")


def the_shard(daemon: Daemon) -> str:
    def look() -> str | None:
        names = [each["name"] for each in read_shards_file(daemon.home)["shards"]]
        return names[0] if len(names) == 1 and not recycling_of(daemon) else None

    return eventually(look, 60, "one shard")


def recycling_of(daemon: Daemon) -> dict[str, Any]:
    return read_shards_file(daemon.home)["recycling"] or {}


def assert_never_connected_twice(daemon: Daemon) -> None:
    stats = daemon.simulator.stats()
    assert stats["most_live_per_jid"] == 1
    assert stats.get("conflicts", 0) == 0


def test_messages_flow_while_a_shard_is_recycled(daemon: Daemon, fleet: Fleet) -> None:
    worn = the_shard(daemon)
    old = daemon.process(worn)
    with Traffic(daemon, "1111") as traffic:
        eventually(lambda: len(traffic.ids) > 20, 20, "traffic")
        told = daemon.json("shard", "recycle", worn)
        count = len(traffic.ids)
        eventually(lambda: len(traffic.ids) > count + 10, 20, "traffic after it")
    assert told["done"]
    traffic.await_outcomes(fleet, {"sent", "delivered", "read"})
    for name in NAMES:
        assert daemon.texts(traffic.recipient(name)) == traffic.sent[name]
    assert_never_connected_twice(daemon)
    assert the_shard(daemon) != worn
    eventually(lambda: not old.is_running(), 20, "the worn process to end")
    row = next(row for row in fleet.restarts(limit=100) if row["cause_code"] == "recycle_operator")
    assert (row["what"], row["name"], row["outcome"]) == ("shard", worn, "ok")
    moves = [row for row in fleet.restarts(limit=100) if row["cause_code"] == "moved"]
    assert [row["outcome"] for row in moves] == ["ok"] * len(NAMES)


def test_a_worn_shard_that_dies_on_the_way_loses_nothing(daemon: Daemon, fleet: Fleet) -> None:
    worn = the_shard(daemon)
    old = daemon.process(worn)
    with Traffic(daemon, "2222") as traffic:
        eventually(lambda: len(traffic.ids) > 20, 20, "traffic")
        # The first device takes its time to come online again, and the others wait for it where they are.
        daemon.simulator.fault("slow", jid=fleet.device("shop-1").jid)
        request = fleet.recycle_shard(worn)
        eventually(lambda: recycling_of(daemon).get("moved", 0) >= 1, 30, "the first to move")
        old.send_signal(signal.SIGKILL)
        daemon.simulator.fault("clear", jid=fleet.device("shop-1").jid)
        eventually(lambda: fleet.restart_of(request), 60, "the recycling to end")
        count = len(traffic.ids)
        eventually(lambda: len(traffic.ids) > count + 10, 20, "traffic after it")
    rows = traffic.await_outcomes(fleet, {"sent", "delivered", "read", "in_doubt"})
    doubtful = {row["state"] for row in rows.values()} - {"sent", "delivered", "read"}
    assert doubtful <= {"in_doubt"}
    for name in NAMES:
        arrived = daemon.texts(traffic.recipient(name))
        assert len(arrived) == len(set(arrived)), "doubled"
        assert [text for text in traffic.sent[name] if text in arrived] == arrived, "out of order"
        missing = len(traffic.sent[name]) - len(arrived)
        assert missing <= sum(row["state"] == "in_doubt" for row in rows.values())
    assert_never_connected_twice(daemon)
    for name in NAMES:
        daemon.await_state(fleet, name, "online")


def test_a_successor_that_dies_on_the_way_is_started_again(daemon: Daemon, fleet: Fleet) -> None:
    worn = the_shard(daemon)
    daemon.simulator.fault("slow", jid=fleet.device("shop-1").jid)
    request = fleet.recycle_shard(worn)
    recycling = eventually(lambda: recycling_of(daemon), 30, "the recycling to begin")
    assert daemon.json("status")["recycling"]["shard"] == worn
    eventually(lambda: recycling_of(daemon).get("moved", 0) >= 1, 30, "the first to move")
    daemon.kill(recycling["successor"])
    daemon.simulator.fault("clear", jid=fleet.device("shop-1").jid)
    row = eventually(lambda: fleet.restart_of(request), 90, "the recycling to end")
    assert row["outcome"] == "ok"
    for name in NAMES:
        daemon.await_state(fleet, name, "online")
    assert the_shard(daemon) == recycling["successor"]
    assert_never_connected_twice(daemon)


def test_commands_are_obeyed_while_a_shard_is_recycled(daemon: Daemon, fleet: Fleet) -> None:
    fleet.add_device("spare")
    daemon.pair(fleet, "spare", "60120000099")
    worn = the_shard(daemon)
    request = fleet.recycle_shard(worn)
    fleet.tell_device("shop-1", "pause")
    refresh = fleet.tell_device("shop-2", "refresh")
    fleet.tell_device("spare", "remove")
    fleet.add_device("newcomer")
    assert daemon.pair(fleet, "newcomer", "60120000098")
    assert eventually(lambda: fleet.restart_of(request), 90, "the recycling to end")["outcome"] == "ok"
    assert eventually(lambda: fleet.restart_of(refresh), 30, "the refresh")["outcome"] == "ok"
    daemon.await_state(fleet, "shop-1", "paused")
    fleet.tell_device("shop-1", "resume")
    for name in (*NAMES, "newcomer"):
        daemon.await_state(fleet, name, "online")
    assert {device.name for device in fleet.devices()} == {*NAMES, "newcomer"}
    assert daemon.simulator.stats()["online"] == len(NAMES) + 1
    assert_never_connected_twice(daemon)
    fleet.tell_device("newcomer", "remove")


def linked(daemon: Daemon, phones: list[str]) -> list[str]:
    """Return what these phones still list as linked devices."""
    return [jid for phone in daemon.simulator.phones() if phone["number"] in phones for jid in phone["companions"]]


def test_devices_that_are_removed_while_they_are_handed_over_are_logged_out(daemon: Daemon, fleet: Fleet) -> None:
    phones = [f"6012000008{number}" for number in range(4)]
    spares = [f"spare-{number}" for number in range(4)]
    for name, phone in zip(spares, phones, strict=True):
        fleet.add_device(name)
        daemon.pair(fleet, name, phone)
    # The last one's send hangs, so that it is let go late.
    daemon.simulator.fault("drop-message", jid=fleet.device(spares[-1]).jid)
    fleet.send(spares[-1], "60199990000", "hangs")
    assert len(linked(daemon, phones)) == len(spares)
    request = fleet.recycle_shard(the_shard(daemon))
    eventually(lambda: recycling_of(daemon).get("moved", 0) >= len(NAMES) + 2, 90, "the first spare ones to move")
    for name in spares:
        fleet.tell_device(name, "remove")
    eventually(lambda: not linked(daemon, phones), 90, "the phones to list no device any more")
    assert eventually(lambda: fleet.restart_of(request), 90, "the recycling to end")["outcome"] == "ok"
    daemon.simulator.fault("clear")
    assert_never_connected_twice(daemon)


def test_a_device_that_is_removed_while_its_shard_is_down_is_logged_out(daemon: Daemon, fleet: Fleet) -> None:
    fleet.add_device("spare")
    daemon.pair(fleet, "spare", "60120000090")
    daemon.kill(the_shard(daemon))
    fleet.tell_device("spare", "remove")
    eventually(lambda: not linked(daemon, ["60120000090"]), 90, "the phone to list no device any more")
    for name in NAMES:
        daemon.await_state(fleet, name, "online")
    assert_never_connected_twice(daemon)


def test_a_pairing_is_not_broken_off(daemon: Daemon, fleet: Fleet) -> None:
    fleet.add_device("late")
    fleet.tell_device("late", "pair")
    text = eventually(lambda: fleet.device("late").pairing_qr, 60, "its QR")
    request = fleet.recycle_shard(the_shard(daemon))
    eventually(lambda: recycling_of(daemon).get("left") == 0, 60, "the others to move")
    daemon.simulator.add_phone("60120000097")
    daemon.simulator.scan("60120000097", fleet.device("late").pairing_qr or text)
    assert eventually(lambda: fleet.restart_of(request), 60, "the recycling to end")["outcome"] == "ok"
    daemon.await_state(fleet, "late", "online")
    assert_never_connected_twice(daemon)


def test_the_command_lists_shards_and_refuses_unknown_ones(daemon: Daemon) -> None:
    name = the_shard(daemon)
    listed = daemon.json("shard", "list")["shards"]
    assert [(each["name"], each["devices"]) for each in listed] == [(name, len(NAMES) + 1)]
    assert listed[0]["refreshes"] > len(NAMES)
    assert daemon.refused("shard", "recycle", "shard-99").code == "unknown_shard"


def test_nothing_is_left_running_but_one_shard(daemon: Daemon) -> None:
    name = the_shard(daemon)
    hosts = [each for each in psutil.Process(daemon.pid).children(recursive=True) if each.name().startswith("shard-")]
    assert [each.name() for each in hosts] == [name]
