"""A silent process that works is told from one that is stopped, asleep or dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from supervisors.pulse import Pulse


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def until_asleep(pulse: Pulse, pid: int) -> None:
    """Wait until a process that has been looked at does nothing any more."""
    deadline = time.monotonic() + 10
    while pulse.beats(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_computes_works_and_one_that_was_stopped_does_not(busy: subprocess.Popen[bytes]) -> None:
    pulse = Pulse()
    assert all(pulse.beats(busy.pid) for _ in range(5))
    os.kill(busy.pid, signal.SIGSTOP)
    until_asleep(pulse, busy.pid)
    assert not pulse.beats(busy.pid)
    os.kill(busy.pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while not pulse.beats(busy.pid):
        assert time.monotonic() < deadline


def test_a_sleeping_process_gets_the_benefit_of_the_doubt_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pulse = Pulse()
        assert pulse.beats(process.pid)
        until_asleep(pulse, process.pid)
        assert not pulse.beats(process.pid)
        assert Pulse().beats(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert not Pulse().beats(process.pid)
