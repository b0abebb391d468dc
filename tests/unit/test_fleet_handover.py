"""The fleet's supervisor hands devices over: driven with messages, its children and its database played by the test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from actors.messages import Heartbeat, HostDevices, RecycleShard, StartChild, StopChild, TellDevice, Wear
from config.home import DAEMON_VARIABLE, Home
from storage.restarts import Restart
from supervisors import fleet as fleet_module
from supervisors import supervision as supervision_module
from supervisors.children import Child
from supervisors.fleet import FleetSupervisor
from supervisors.supervision import Supervision
from supervisors.tables import FleetTables, Wanted

DEVICES = (1, 2, 3)


class FakeShard:
    """A shard that does at once what it is told, and says so when asked to."""

    def __init__(self, start: StartChild) -> None:
        self.start = start
        self.hosted: tuple[int, ...] = start.device_ids
        self.order = start.order
        self.told: list[TellDevice] = []
        self.orders: list[HostDevices] = []
        self.alive = True

    def take(self, message: Any) -> None:
        if isinstance(message, HostDevices):
            self.orders.append(message)
            self.hosted, self.order = message.device_ids, message.order
        elif isinstance(message, TellDevice):
            self.told.append(message)
        elif isinstance(message, StopChild):
            self.alive = False


class PlayedTables(FleetTables):
    """The device table without a database."""

    def read(self, now: float, *, fresh: bool) -> Wanted:
        del fresh
        self._read_at = self._answered_at = now
        return Wanted(DEVICES, {})

    def reroute(self, now: float) -> None:
        self._answered_at = now


class Played(FleetSupervisor):
    """The supervisor without an actor system."""

    def __init__(self) -> None:
        super().__init__()
        self.shards: dict[str, FakeShard] = {}
        self.recorded: list[Restart] = []
        self._journal.record = self.recorded.append  # type: ignore[assignment]
        self._created = 0

    def createActor(self, kind: Any, globalName: str | None = None) -> Any:  # noqa: N802, N803 - Thespian's names
        del kind, globalName
        self._created += 1
        return f"address-{self._created}"

    def send(self, address: Any, message: Any) -> None:
        if isinstance(message, StartChild) and message.role == "shard":
            self.shards[message.name] = FakeShard(message)
            self.shards[message.name].start = message
        for child in self._children.shards:
            if child.address == address and child.name in self.shards and not isinstance(message, StartChild):
                self.shards[child.name].take(message)

    def wake_after(self, seconds: float, payload: Any = None) -> None:
        del seconds, payload

    def beat(self, name: str, *, opening: tuple[int, ...] = (), wear: Wear | None = None) -> None:
        shard = self.shards[name]
        start = shard.start
        told = Heartbeat("shard", name, start.owner, self.pid, self.started, shard.hosted, shard.order, opening, wear)
        self.on_heartbeat(told, None)

    def died(self, name: str) -> None:
        child = self.shard(name)
        child.pid = None
        self._supervision.fell(child, "exited", "Its process ended.")

    def shard(self, name: str) -> Child:
        child = self._children.find("shard", name)
        assert child is not None
        return child

    #: No process has such a number.
    pid, started = 2**22 + 1, 0.0


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    home = Home(tmp_path / "home")
    home.create()
    home.configuration.write_text("max_shards = 1\ngateway_enabled = false\n", encoding="utf-8")
    monkeypatch.setenv(DAEMON_VARIABLE, str(home.path))

    monkeypatch.setattr(fleet_module, "database_url", lambda *_: "postgresql:///nowhere")
    monkeypatch.setattr(fleet_module, "preload", lambda: None)
    monkeypatch.setattr(fleet_module, "FleetTables", PlayedTables)
    monkeypatch.setattr(supervision_module, "process_is_alive", lambda *_: True)
    # There are none; but the test's own process may have children.
    monkeypatch.setattr(Supervision, "_kill_unknown_children", lambda _: None)
    played = Played()
    played.begin()
    return played


def hosted(fleet: Played) -> dict[str, tuple[int, ...]]:
    return {name: shard.hosted for name, shard in fleet.shards.items() if shard.alive and shard.hosted}


def recycling(fleet: Played) -> None:
    """Begin to recycle the one shard; its successor is started and has nothing yet."""
    fleet.beat("shard-1")
    fleet.on_recycle_shard(RecycleShard("shard-1", "request"), None)
    fleet.on_wakeup("tick")
    fleet.on_wakeup("tick")
    assert fleet.shards["shard-2"].start.device_ids == ()
    time.sleep(2 / fleet.settings.connects_per_second)  # by then its first device may connect


def test_devices_move_one_by_one_and_are_never_told_to_two_shards(fleet: Played) -> None:
    recycling(fleet)
    for moved in range(1, len(DEVICES) + 1):
        fleet.beat("shard-2")  # the next one may move
        time.sleep(2 / fleet.settings.connects_per_second)
        assert fleet.shards["shard-1"].orders[-1].at_rest == (moved,)
        assert moved not in fleet.shards["shard-2"].hosted, "the old one has not said that it let go"
        fleet.beat("shard-1")
        assert fleet.shards["shard-2"].hosted == tuple(range(1, moved + 1))
        spread = [device for devices in hosted(fleet).values() for device in devices]
        assert sorted(spread) == sorted(set(spread)) == sorted(DEVICES)
    fleet.on_wakeup("tick")
    assert not fleet.shards["shard-1"].alive
    fleet.died("shard-1")
    fleet.on_wakeup("tick")
    fleet.on_wakeup("tick")
    done = [row for row in fleet.recorded if row.cause_code == "recycle_operator"]
    assert [(row.name, row.outcome, row.request) for row in done] == [("shard-1", "ok", "request")]


def test_a_command_for_a_device_on_its_way_waits_until_it_is_hosted(fleet: Played) -> None:
    recycling(fleet)
    fleet.beat("shard-2")
    fleet.on_tell_device(TellDevice(1, "refresh", None, "a request"), None)
    assert fleet.shards["shard-1"].told == fleet.shards["shard-2"].told == []
    fleet.beat("shard-1")
    assert [each.request for each in fleet.shards["shard-2"].told] == ["a request"]


def test_a_removal_goes_to_the_shard_that_has_the_connection(fleet: Played) -> None:
    recycling(fleet)
    fleet.beat("shard-2")
    fleet.on_tell_device(TellDevice(1, "remove", None, "on its way"), None)
    fleet.on_tell_device(TellDevice(2, "remove", None, "at rest"), None)
    assert [each.request for each in fleet.shards["shard-1"].told] == ["on its way", "at rest"]
    fleet.beat("shard-1")
    fleet.on_tell_device(TellDevice(1, "remove", None, "moved"), None)
    assert [each.request for each in fleet.shards["shard-2"].told] == ["moved"]


def test_a_removal_whose_device_is_placed_nowhere_any_more_is_carried_out_by_any_shard(fleet: Played) -> None:
    fleet.beat("shard-1")
    fleet.on_tell_device(TellDevice(99, "refresh", None, "senseless"), None)
    fleet.on_tell_device(TellDevice(99, "remove", None, "a request"), None)
    assert [each.request for each in fleet.shards["shard-1"].told] == ["a request"]


def test_a_shard_that_leaves_is_given_no_removal_and_hands_on_what_it_may_not_have_read(fleet: Played) -> None:
    recycling(fleet)
    fleet.on_tell_device(TellDevice(98, "remove", None, "before"), None)
    assert [each.request for each in fleet.shards["shard-1"].told] == ["before"]
    for _ in DEVICES:
        fleet.beat("shard-2")
        time.sleep(2 / fleet.settings.connects_per_second)
        fleet.beat("shard-1")
    fleet.on_wakeup("tick")
    fleet.beat("shard-2")
    assert fleet.shard("shard-1").leaving_since is not None
    fleet.on_tell_device(TellDevice(99, "remove", None, "meanwhile"), None)
    assert [each.request for each in fleet.shards["shard-2"].told] == ["meanwhile"]
    fleet.died("shard-1")
    assert [each.request for each in fleet.shards["shard-2"].told] == ["meanwhile", "before"]


def test_a_shard_that_dies_over_a_removal_is_told_of_it_again(fleet: Played) -> None:
    fleet.beat("shard-1")
    fleet.on_tell_device(TellDevice(1, "remove", None, "a removal"), None)
    fleet.on_tell_device(TellDevice(2, "refresh", None, "a refresh"), None)
    fleet.died("shard-1")
    fleet.shard("shard-1").start_at = 0.0
    fleet.on_wakeup("tick")
    assert fleet.shards["shard-1"].told == [], "it is a new process"
    fleet.beat("shard-1")
    assert [each.request for each in fleet.shards["shard-1"].told] == ["a removal"]


def test_when_the_old_shard_dies_the_new_one_takes_the_rest(fleet: Played) -> None:
    recycling(fleet)
    fleet.beat("shard-2")
    fleet.died("shard-1")
    fleet.on_wakeup("tick")
    assert fleet.shards["shard-2"].hosted == DEVICES
    assert fleet.shards["shard-1"].start.restarted is False, "it was not started again"


def test_an_order_that_was_not_carried_out_is_given_again(fleet: Played) -> None:
    recycling(fleet)
    fleet.beat("shard-2")
    fleet.beat("shard-1")
    lost = fleet.shards["shard-2"]
    count = len(lost.orders)
    lost.order -= 1  # as if it had never come
    fleet.beat("shard-2")
    fleet.shard("shard-2").ordered_at -= 60.0
    fleet.on_wakeup("tick")
    assert len(lost.orders) > count
    assert lost.orders[-1] == lost.orders[count - 1]


def test_a_request_about_no_shard_is_answered(fleet: Played) -> None:
    fleet.on_recycle_shard(RecycleShard("shard-9", "request"), None)
    assert [(row.outcome, row.request) for row in fleet.recorded] == [("there is no such shard", "request")]
