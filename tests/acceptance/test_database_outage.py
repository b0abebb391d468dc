"""PostgreSQL away for some seconds: nothing is restarted in a storm, nothing is lost, and everything resumes."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from config.errors import AcceptanceUnknown
from tests.support.daemon import Daemon, eventually
from tests.support.sending import Sending, prove

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("shop", "wablas-1")
FRIEND = "60199000077"
_OUTAGE_SECONDS = 8.0


@pytest.fixture(scope="module", autouse=True)
def devices(daemon: Daemon) -> None:
    daemon.add_paired("shop", "60120000001")
    daemon.add_platform("wablas-1", "wablas")


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Let every process of PostgreSQL stand still."""
    postmaster = daemon.process("postmaster")
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def test_a_database_that_stands_still_restarts_nothing_and_loses_nothing(daemon: Daemon) -> None:
    names = ("fleet", "router", "shard-1", "platform-wablas", "sal-admin", "postmaster")
    before = {name: daemon.process(name).pid for name in names}
    with daemon.fleet() as fleet:
        restarts = fleet.restarts(limit=500)
    with Sending(daemon, DEVICES, "standing still") as sending:
        with stopped(daemon):
            until = time.monotonic() + _OUTAGE_SECONDS
            told = daemon.run("status")
            time.sleep(max(0.0, until - time.monotonic()))  # the outage itself, not a wait for something
        sending.await_more(10)
    assert told.returncode == 4
    assert "Running on" in told.stdout
    assert "Nothing needs a restart" in told.stderr
    proof = prove(daemon, sending.accepted)
    assert not proof.lost
    assert not proof.doubled
    assert not proof.other_states
    assert not proof.doubtful_arrived
    assert not proof.doubtful_missing
    assert {name: daemon.process(name).pid for name in names} == before
    with daemon.fleet() as fleet:
        assert fleet.restarts(limit=500) == restarts
        assert fleet.device("shop").state == "online"


def test_who_sends_into_an_outage_learns_how_to_find_out_and_sends_it_once(daemon: Daemon) -> None:
    daemon.simulator.add_phone(FRIEND)
    with daemon.fleet(timeout=2) as fleet, stopped(daemon), pytest.raises(AcceptanceUnknown) as raised:
        fleet.send("shop", FRIEND, "into the outage")
    key = raised.value.key
    assert raised.value.exit_code == 4
    assert f"run.py messages --key {key}" in raised.value.next_step
    sent = daemon.json("send", "shop", FRIEND, "into the outage", "--key", key, "--wait")
    assert [row["id"] for row in daemon.json("messages", "--key", key)] == [sent["id"]]
    assert daemon.json("messages", "--key", key, "--device", "wablas-1") == []
    with daemon.fleet() as fleet:
        daemon.await_message(fleet, sent["id"], "delivered read", 60)
    assert [row["text"] for row in daemon.simulator.inbox(FRIEND)] == ["into the outage"]


def test_a_message_whose_answers_were_lost_is_found_by_the_key_that_was_made_for_it(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon.fleet(timeout=2) as fleet:
        ask = fleet._router.ask
        monkeypatch.setattr(fleet._router, "ask", lambda message, seconds: ask(message, seconds) and None)
        message_id = fleet.send("shop", FRIEND, "its answers are lost")
        assert [row["id"] for row in fleet.messages(limit=1)] == [message_id]
        with pytest.raises(AcceptanceUnknown, match="not known"):
            fleet.send("shop", FRIEND, "with a key of its own", idempotency_key="the caller's")


def test_a_database_that_dies_again_and_again_is_started_again_each_time(daemon: Daemon) -> None:
    names = ("fleet", "router", "shard-1", "platform-wablas", "sal-admin")
    before = {name: daemon.process(name).pid for name in names}
    with Sending(daemon, DEVICES, "dying") as sending:
        for _ in range(3):
            daemon.kill("postmaster")
            sending.await_more(10)
    proof = prove(daemon, sending.accepted)
    assert not proof.lost
    assert not proof.doubled
    assert not proof.other_states
    assert not proof.doubtful_arrived
    assert not proof.doubtful_missing
    assert {name: daemon.process(name).pid for name in names} == before
    with daemon.fleet() as fleet:

        def told() -> bool:
            return [row["what"] for row in fleet.restarts(limit=500)] == ["postgres"] * 3

        eventually(told, 15, "three restarts of PostgreSQL, and nothing else, to be recorded")
