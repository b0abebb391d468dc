"""PostgreSQL away for some seconds: nothing is restarted in a storm, nothing is lost, and everything resumes."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.daemon import Daemon, eventually
from tests.support.sending import Sending, prove

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("shop", "wablas-1")
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
