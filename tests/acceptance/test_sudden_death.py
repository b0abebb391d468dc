"""kill -9 of every process while messages flow: the fleet is back by itself, and each message arrives exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from config.errors import DaemonNotRunning, NoAnswer, StorageUnavailable
from tests.support.daemon import Daemon, eventually
from tests.support.sending import Accepted, Sending, prove

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = {"max_shards": 1, "backoff_first_seconds": 0.5, "stable_seconds": 5}
DEVICES = ("north", "south", "wablas-1", "whacenter-1")
WHATSAPP = DEVICES[:2]


@pytest.fixture(scope="module", autouse=True)
def devices(daemon: Daemon) -> None:
    """Two WhatsApp devices in one shard, and one device of each platform."""
    daemon.add_paired("north", "60120000001")
    daemon.add_paired("south", "60120000002")
    daemon.add_platform("wablas-1", "wablas")
    daemon.add_platform("whacenter-1", "whacenter")


def last_restart(daemon: Daemon) -> int:
    """Return the id of the newest restart."""
    rows = daemon.json_lines("restarts")
    return int(rows[-1]["id"]) if rows else 0


def await_restart(daemon: Daemon, what: str, name: str, after: int) -> None:
    """Wait until the fleet's own record names what fell."""

    def told() -> bool:
        try:
            with daemon.fleet(5) as fleet:
                return any((row["what"], row["name"]) == (what, name) for row in fleet.restarts(after=after, limit=500))
        except (DaemonNotRunning, NoAnswer, StorageUnavailable):
            return False

    eventually(told, 40, f"the restart of {what} {name} to be recorded")


def assert_each_arrived_once(daemon: Daemon, accepted: Sequence[Accepted], may_be_in_doubt: Sequence[str] = ()) -> None:
    """Check that nothing was lost or doubled, and that doubts are few and honest.

    What was on its way when its process died may stay in doubt, at most one message of each device in
    ``may_be_in_doubt``: the library had begun with it, and the receipt, if there was one, died with the process.
    """
    proof = prove(daemon, accepted)
    assert not proof.lost
    assert not proof.doubled
    assert not proof.other_states
    doubtful = [each.device for each in (*proof.doubtful_arrived, *proof.doubtful_missing)]
    assert sorted(set(doubtful)) == sorted(doubtful), doubtful
    assert set(doubtful) <= set(may_be_in_doubt), proof


@pytest.mark.parametrize(
    ("process", "what", "name", "may_be_in_doubt"),
    [
        ("router", "router", "router", ()),
        ("shard-1", "shard", "shard-1", WHATSAPP),
        ("platform-wablas", "platform", "wablas", ("wablas-1",)),
        ("platform-whacenter", "platform", "whacenter", ("whacenter-1",)),
        ("postmaster", "postgres", "embedded", DEVICES),
        ("fleet", "system", "actor system", DEVICES),
        ("sal-admin", "system", "actor system", DEVICES),
    ],
)
def test_a_killed_process_comes_back_and_every_message_arrives_once(
    daemon: Daemon, process: str, what: str, name: str, may_be_in_doubt: tuple[str, ...]
) -> None:
    before = last_restart(daemon)
    with Sending(daemon, DEVICES, f"killing {process}") as sending:
        daemon.kill(process)
        await_restart(daemon, what, name, before)
        daemon.await_ready()
        sending.await_more(2 * len(DEVICES))
    assert_each_arrived_once(daemon, sending.accepted, may_be_in_doubt)
    rows = [row for row in daemon.json_lines("restarts") if row["id"] > before]
    assert [row for row in rows if row["what"] == what and row["cause"] and row["seconds"] > 0]
    assert not [row for row in rows if row["what"] == "device" and row["name"] not in WHATSAPP]


def test_after_the_watchdog_is_killed_the_next_start_cleans_up_and_sends_what_was_accepted(daemon: Daemon) -> None:
    with Sending(daemon, DEVICES, "killing watchdog") as sending:
        sending.await_more(10)
        daemon.kill("watchdog")
        assert isinstance(sending.await_failure(), DaemonNotRunning | NoAnswer | StorageUnavailable)
    status = daemon.run("status", "--json")
    assert status.returncode == 3
    daemon.start()
    assert_each_arrived_once(daemon, sending.accepted, DEVICES)


@pytest.mark.parametrize(
    ("platform", "end"), [("wablas", "sent"), ("whacenter", "in_doubt")], ids=["wablas", "whacenter"]
)
def test_a_request_whose_actor_dies_is_looked_up_or_honestly_in_doubt_and_never_repeated(
    daemon: Daemon, platform: str, end: str
) -> None:
    text = f"killed with {platform} in the middle of the request"
    daemon.simulator.platform_fault(platform, "slow-after-recording")
    try:
        with daemon.fleet() as fleet:
            message_id = fleet.send(f"{platform}-1", "+60199000001", text)
            eventually(lambda: count_at(daemon, platform, text), 15, "the platform to have the message")
            assert fleet.states([message_id])[message_id]["state"] == "sending"
            daemon.kill(f"platform-{platform}")
            daemon.simulator.platform_fault(platform, "clear")
            row = daemon.await_message(fleet, message_id, end)
            follower = fleet.send(f"{platform}-1", "+60199000001", f"after: {text}")
            daemon.await_message(fleet, follower, "sent")
            assert fleet.states([message_id])[message_id] == row
    finally:
        daemon.simulator.platform_fault(platform, "clear")
    assert count_at(daemon, platform, text) == 1


def count_at(daemon: Daemon, platform: str, text: str) -> int:
    """Return how often a loopback platform recorded a text."""
    return [row["text"] for row in daemon.simulator.platform_log(platform)].count(text)
