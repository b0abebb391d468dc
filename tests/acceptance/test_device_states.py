"""What becomes of a device that cannot send: the right state, the right words, and neighbours that notice nothing."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.fleet import Fleet

#: Everybody lives in one shard, so that a neighbour is as near as it can be.
SETTINGS = {"max_shards": 1, "reconnect_seconds": 4, "connect_seconds": 8, "backoff_first_seconds": 0.5}
RECIPIENT = "60199000001"


@pytest.fixture(scope="module", autouse=True)
def neighbour(daemon: Daemon) -> None:
    daemon.add_paired("steady", "60120000001")


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _the_neighbour_is_untouched(daemon: Daemon, neighbour: None, fleet: Fleet) -> Iterator[None]:
    """The other device of the shard stays online all the time, in the same process, and sends."""
    shard, since = daemon.process("shard-1").pid, fleet.device("steady").state_since
    yield
    text = f"still here {time.monotonic_ns()}"
    daemon.await_message(fleet, fleet.send("steady", RECIPIENT, text), "delivered")
    assert text in daemon.texts(RECIPIENT)
    assert daemon.process("shard-1").pid == shard
    assert fleet.device("steady").state_since == since
    assert not fleet.restarts(device="steady")


@contextlib.contextmanager
def waiting_message(daemon: Daemon, fleet: Fleet, device: str) -> Iterator[Callable[[], None]]:
    """A message that waits for ``device``; the block gets a check that it arrives now, once."""
    text = f"waits for {device}"
    message_id = fleet.send(device, RECIPIENT, text)

    def arrives() -> None:
        daemon.await_message(fleet, message_id, "delivered")
        assert daemon.texts(RECIPIENT).count(text) == 1

    yield arrives


def shown(daemon: Daemon, device: str) -> Any:
    return daemon.json("device", "show", device)


def connects(daemon: Daemon) -> int:
    return int(daemon.simulator.stats()["connects"])


def assert_nothing_is_tried(daemon: Daemon, fleet: Fleet, device: str, state: str) -> None:
    """Watch three looks at the lanes, with a message waiting: no connection is made, the state stays."""
    before, deadline = connects(daemon), time.monotonic() + 3.5
    while time.monotonic() < deadline:
        assert fleet.device(device).state == state
        assert connects(daemon) == before
        time.sleep(0.25)


def test_a_device_without_a_phone_needs_pairing_and_its_messages_wait(daemon: Daemon, fleet: Fleet) -> None:
    fleet.add_device("fresh")
    with waiting_message(daemon, fleet, "fresh") as arrives:
        assert_nothing_is_tried(daemon, fleet, "fresh", "needs_pairing")
        device = shown(daemon, "fresh")
        assert (device["state"], device["jid"], device["waiting"]) == ("needs_pairing", None, 1)
        assert "device pair fresh" in device["advice"]
        daemon.pair(fleet, "fresh", "60120000002")
        arrives()


def test_a_device_whose_session_is_missing_from_the_store_needs_pairing(daemon: Daemon, fleet: Fleet) -> None:
    jid = daemon.add_paired("forgotten", "60120000003")
    daemon.whatsmeow_sql("delete from whatsmeow_device where jid = %s", jid)
    refusal = daemon.refused("device", "refresh", "forgotten")
    assert refusal.code == "refresh_failed"
    daemon.await_state(fleet, "forgotten", "needs_pairing")
    with waiting_message(daemon, fleet, "forgotten") as arrives:
        device = shown(daemon, "forgotten")
        assert (device["state"], device["reason_code"]) == ("needs_pairing", "store_missing")
        assert "not in the store" in device["reason"]
        assert "device pair forgotten" in device["advice"]
        assert device["restarts"][-1]["outcome"].startswith("store_missing")
        assert_nothing_is_tried(daemon, fleet, "forgotten", "needs_pairing")
        assert daemon.pair(fleet, "forgotten", "60120000003") != jid
        arrives()


def test_a_logged_out_device_is_left_alone_until_it_is_paired_again(daemon: Daemon, fleet: Fleet) -> None:
    jid = daemon.add_paired("unlinked", "60120000004")
    daemon.ok("simulator", "fault", "device-removed", "--device", "unlinked")
    daemon.await_state(fleet, "unlinked", "logged_out")
    with waiting_message(daemon, fleet, "unlinked") as arrives:
        assert_nothing_is_tried(daemon, fleet, "unlinked", "logged_out")
        device = shown(daemon, "unlinked")
        assert (device["state"], device["reason_code"], device["jid"]) == ("logged_out", "logged_out", None)
        assert device["next_attempt_at"] is None
        assert "device pair unlinked" in device["advice"]
        assert daemon.pair(fleet, "unlinked", "60120000004") != jid
        arrives()


def test_a_device_that_was_unlinked_while_it_was_away_is_logged_out_at_its_next_login(
    daemon: Daemon, fleet: Fleet
) -> None:
    jid = daemon.add_paired("away", "60120000005")
    daemon.simulator.fault("failure-401", jid=jid)
    daemon.simulator.fault("reset", jid=jid)
    daemon.await_state(fleet, "away", "logged_out")
    daemon.simulator.fault("clear", jid=jid)
    assert_nothing_is_tried(daemon, fleet, "away", "logged_out")
    fleet.tell_device("away", "remove")


def test_a_replaced_session_is_a_conflict_and_is_not_fought_over(daemon: Daemon, fleet: Fleet) -> None:
    daemon.add_paired("contested", "60120000006")
    daemon.ok("simulator", "fault", "replaced", "--device", "contested")
    daemon.await_state(fleet, "contested", "conflict")
    with waiting_message(daemon, fleet, "contested") as arrives:
        assert_nothing_is_tried(daemon, fleet, "contested", "conflict")
        device = shown(daemon, "contested")
        assert (device["state"], device["reason_code"]) == ("conflict", "replaced")
        assert device["next_attempt_at"] is not None
        assert "Stop the other program" in device["advice"]
        assert daemon.json("device", "refresh", "contested")["outcome"] == "ok"
        arrives()


@pytest.mark.parametrize(
    ("fault", "state", "tried_again", "phone"),
    [("failure-402", "banned", True, "60120000007"), ("failure-405", "outdated", False, "60120000008")],
)
def test_a_refused_login_is_not_repeated(
    daemon: Daemon, fleet: Fleet, fault: str, state: str, tried_again: bool, phone: str
) -> None:
    jid = daemon.add_paired(state, phone)
    daemon.simulator.fault(fault, jid=jid)
    assert daemon.refused("device", "refresh", state).code == "refresh_failed"
    daemon.await_state(fleet, state, state)
    with waiting_message(daemon, fleet, state) as arrives:
        assert_nothing_is_tried(daemon, fleet, state, state)
        device = shown(daemon, state)
        assert (device["state"], device["reason_code"], device["jid"]) == (state, state, jid)
        assert (device["next_attempt_at"] is not None) == tried_again
        assert device["advice"]
        daemon.simulator.fault("clear", jid=jid)
        daemon.ok("device", "refresh", state)
        arrives()
