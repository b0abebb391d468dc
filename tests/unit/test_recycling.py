"""Recycling: which shard, when the next device moves, and that no device is ever in two places."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.messages import Wear
from supervisors.placement import place, successor
from supervisors.recycling import Budget, Recycler, Shard

FRESH = Wear(refreshes=3, descriptors=40, megabytes=60.0, seconds=10.0)
BUDGET = Budget(refreshes=100, descriptors=50, megabytes=200.0, seconds=1000.0)


def shard(*devices: int, wear: Wear | None = FRESH, up: bool = True, settled: bool = True) -> Shard:
    return Shard(up, settled, frozenset(devices), frozenset(devices), wear=wear)


# --- the budget ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wear", "code"),
    [
        (FRESH, None),
        (replace(FRESH, refreshes=100), "recycle_refreshes"),
        (replace(FRESH, descriptors=50 + 12 * 40), "recycle_descriptors"),
        (replace(FRESH, megabytes=200 + 1.0 * 40), "recycle_memory"),
        (replace(FRESH, seconds=1000.0), "recycle_age"),
    ],
)
def test_a_budget_is_spent_by_any_of_its_parts(wear: Wear, code: str | None) -> None:
    cause = BUDGET.spent(wear, 40)
    assert (cause.code if cause else None) == code


def test_many_devices_may_take_more() -> None:
    worn = replace(FRESH, descriptors=5000, megabytes=900.0)
    assert BUDGET.spent(worn, 1) is not None
    assert BUDGET.spent(worn, 1000) is None


def test_a_budget_of_nothing_is_never_spent() -> None:
    assert Budget().spent(Wear(10**9, 10**9, 1e9, 1e9), 0) is None


# --- beginning -------------------------------------------------------------------------------------------


def recycler() -> Recycler:
    return Recycler(BUDGET, pairing_seconds=160.0)


WORN = replace(FRESH, refreshes=100)


def test_nothing_is_recycled_while_all_is_well() -> None:
    assert not recycler().begin({"shard-1": shard(1), "shard-2": shard(2)}, 0.0)


def test_a_spent_shard_is_recycled_and_only_one_at_a_time() -> None:
    it = recycler()
    shards = {"shard-1": shard(1, wear=WORN), "shard-2": shard(2, wear=WORN)}
    assert it.begin(shards, 0.0)
    assert it.current is not None
    assert (it.current.worn, it.current.fresh, it.current.cause.code) == ("shard-1", "shard-3", "recycle_refreshes")
    assert not it.begin(shards, 0.0)


def test_a_spent_shard_waits_while_another_is_down_but_the_operator_does_not() -> None:
    it = recycler()
    shards = {"shard-1": shard(1, wear=WORN), "shard-2": shard(2, up=False)}
    assert not it.begin(shards, 0.0)
    it.ask("shard-1", "request")
    assert it.begin(shards, 0.0)
    assert it.current is not None
    assert it.current.cause.request == "request"


def test_a_request_about_a_shard_that_is_gone_is_told_once() -> None:
    it = recycler()
    it.ask("shard-1", "request")
    assert it.forgotten({"shard-1": shard(1), "shard-2": shard(2)}) == {}
    assert it.forgotten({"shard-2": shard(2)}) == {"shard-1": "request"}
    assert it.forgotten({"shard-2": shard(2)}) == {}
    assert not it.begin({"shard-1": shard(1)}, 0.0)


def test_a_shard_is_asked_for_once() -> None:
    it = recycler()
    assert it.ask("shard-1", "first")
    assert not it.ask("shard-1", "second")
    assert it.begin({"shard-1": shard(1)}, 0.0)
    assert not it.ask("shard-1", "third")


# --- moving ----------------------------------------------------------------------------------------------


class Fleet:
    """Shards that do what they are told as soon as ``settle`` is called, each device hosted at most once."""

    def __init__(self, it: Recycler, hosting: dict[str, tuple[int, ...]]) -> None:
        self.it = it
        self.devices = {each for hosted in hosting.values() for each in hosted}
        self.placed = dict(hosting)
        self.holds = {name: frozenset(hosted) for name, hosted in hosting.items()}
        self.dead: set[str] = set()
        self.opening: frozenset[int] = frozenset()

    def shards(self) -> dict[str, Shard]:
        return {
            name: Shard(
                name not in self.dead,
                True,
                frozenset(hosted),
                self.holds[name],
                self.opening if self.it.current and name == self.it.current.fresh else frozenset(),
                WORN,
            )
            for name, hosted in self.placed.items()
        }

    def place(self) -> None:
        wanted = self.it.apart(place(self.it.as_one(self.placed), self.devices, 2))
        assert sorted(each for hosted in wanted.values() for each in hosted) == sorted(self.devices)
        for name in self.placed:
            wanted.setdefault(name, ())
        for name in wanted:
            self.holds.setdefault(name, frozenset())
        self.placed = wanted

    def settle(self) -> None:
        """Let go of what is not placed there any more, then take in what nobody else holds."""
        for name in self.placed:
            self.holds[name] = frozenset() if name in self.dead else self.holds[name] & set(self.placed[name])
        for name, hosted in self.placed.items():
            others = frozenset().union(*(held for other, held in self.holds.items() if other != name))
            self.holds[name] |= set(hosted) - others
        for name in [name for name, hosted in self.placed.items() if not hosted and not self.holds[name]]:
            if self.it.current is None or name != self.it.current.fresh:
                del self.placed[name]

    def step(self, now: float) -> None:
        if self.it.advance(self.shards(), now):
            self.place()


def begun(devices: int = 4) -> Fleet:
    it = recycler()
    fleet = Fleet(it, {"shard-1": tuple(range(1, devices + 1)), "shard-2": (100,)})
    it.ask("shard-1", "request")
    assert it.begin(fleet.shards(), 0.0)
    fleet.place()
    fleet.settle()
    return fleet


def test_devices_move_one_by_one_and_the_worn_shard_ends() -> None:
    fleet = begun()
    moved = []
    for now in range(10):
        fleet.step(float(now))
        on_the_way = fleet.holds["shard-1"] - set(fleet.placed.get("shard-1", ()))
        assert len(on_the_way) <= 1
        moved.append(len(fleet.placed["shard-3"]))
        fleet.settle()
        if "shard-1" not in fleet.placed:
            break
    assert moved == [1, 2, 3, 4]
    done = fleet.it.finished(fleet.shards())
    assert done is not None
    assert (done.worn, done.fresh, done.moved, done.broken) == ("shard-1", "shard-3", 4, False)
    assert fleet.placed == {"shard-2": (100,), "shard-3": (1, 2, 3, 4)}
    assert fleet.it.finished(fleet.shards()) is None


def test_no_device_moves_before_the_last_one_has_arrived() -> None:
    fleet = begun()
    fleet.step(0.0)
    fleet.step(1.0)
    assert fleet.placed["shard-3"] == (1,)
    fleet.settle()
    fleet.opening = frozenset({1})
    fleet.step(2.0)
    assert len(fleet.placed["shard-3"]) == 1
    fleet.step(500.0)  # one that does not come online holds up the others for a time only
    assert len(fleet.placed["shard-3"]) == 2


def test_devices_move_no_faster_than_the_successor_may_connect() -> None:
    fleet = begun()
    moved = [fleet.it.advance(fleet.shards(), now, 0.5) for now in (0.1, 0.5)]
    assert moved == [False, True]


def test_no_device_moves_while_the_successor_is_down() -> None:
    fleet = begun()
    fleet.dead.add("shard-3")
    fleet.step(0.0)
    assert fleet.placed["shard-3"] == ()


def test_when_the_worn_shard_dies_the_rest_follow_at_once() -> None:
    fleet = begun()
    fleet.step(0.0)
    fleet.settle()
    fleet.dead.add("shard-1")
    fleet.step(1.0)
    assert fleet.placed["shard-3"] == (1, 2, 3, 4)
    fleet.settle()
    done = fleet.it.finished(fleet.shards())
    assert done is not None
    assert done.broken


def test_a_device_that_is_added_meanwhile_goes_to_the_emptiest_and_a_removed_one_is_forgotten() -> None:
    fleet = begun()
    fleet.devices.add(200)
    fleet.devices.discard(3)
    fleet.place()
    assert fleet.placed["shard-2"] == (100, 200)
    assert fleet.placed["shard-1"] == (1, 2, 4)


def test_a_device_that_is_not_let_go_makes_the_worn_shard_stuck() -> None:
    fleet = begun()
    fleet.step(0.0)
    assert not fleet.it.stuck(fleet.shards(), 200.0)
    assert fleet.it.stuck(fleet.shards(), 300.0)
    fleet.settle()
    assert not fleet.it.stuck(fleet.shards(), 300.0)


# --- names -----------------------------------------------------------------------------------------------


def test_a_successor_has_a_free_name_and_a_quarantined_device_stays_alone() -> None:
    assert successor("shard-1", {"shard-1", "shard-2"}) == "shard-3"
    assert successor("quarantine-7", {"quarantine-7"}) == "quarantine-7b"
    assert successor("quarantine-7b", {"quarantine-7b"}) == "quarantine-7"
    assert place({"quarantine-7b": (7,)}, [7, 8], 4, frozenset({7})) == {"quarantine-7b": (7,), "shard-1": (8,)}
