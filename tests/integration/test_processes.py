"""Processes that die with their parent, are found by their home, swept and reaped."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from config.home import DAEMON_VARIABLE, Home
from supervisors.processes import (
    FATAL_SIGNALS,
    daemon_processes,
    kill_and_wait,
    process_is_alive,
    process_started,
    raise_descriptor_limit,
    sweep,
    wait_until_gone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SECONDS = 10.0


@contextlib.contextmanager
def python(code: str, home: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run ``code`` in a process that is killed, with its children, at the end."""
    marks = {DAEMON_VARIABLE: str(home)} if home else {}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **marks},
    ) as process:
        children: list[psutil.Process] = []
        try:
            yield process
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(process.pid).children(recursive=True)
        finally:
            for child in children:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            process.kill()


def told(process: subprocess.Popen[str]) -> int:
    """Read the number a process tells."""
    assert process.stdout is not None
    return int(process.stdout.readline())


WAIT = "import sys; print(0, flush=True); sys.stdin.read()"
MORTAL_CHILD = """
import os, sys, time
from supervisors.processes import die_with_parent
parent = os.getpid()
child = os.fork()
if child == 0:
    die_with_parent(parent)
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
CHILD_OF_A_DEAD_PARENT = """
import os, time
from supervisors.processes import die_with_parent
parent = os.getpid()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    while os.getppid() == parent: time.sleep(0.001)
    die_with_parent(parent)
    time.sleep(60)
"""
ADOPTER = """
import os, time
from supervisors.processes import become_subreaper, reap
assert become_subreaper()
if os.fork() == 0:
    if os.fork() == 0:
        while True: time.sleep(60)
    os._exit(0)
os.wait()
(orphan,) = [int(pid) for pid in open(f'/proc/self/task/{os.getpid()}/children').read().split()]
assert reap() == {}
os.kill(orphan, 9)
while not (collected := reap()): time.sleep(0.01)
assert collected == {orphan: 9}, collected
print(orphan, flush=True)
"""


def test_a_child_dies_with_its_parent() -> None:
    with python(MORTAL_CHILD) as parent:
        child = told(parent)
        assert process_is_alive(child)
        parent.kill()
        assert wait_until_gone(child, None, 1)


def test_a_child_whose_parent_has_died_already_ends() -> None:
    with python(CHILD_OF_A_DEAD_PARENT) as parent:
        assert wait_until_gone(told(parent), None, SECONDS)


def test_a_subreaper_adopts_orphans_and_reaps_them() -> None:
    with python(ADOPTER) as adopter:
        assert not process_is_alive(told(adopter))


def test_a_process_is_known_by_its_start() -> None:
    with python(WAIT) as process:
        told(process)
        started = process_started(process.pid)
        assert started == process_started(process.pid)
        assert process_is_alive(process.pid)
        assert process_is_alive(process.pid, started)
        assert started is not None
        assert not process_is_alive(process.pid, started - 1)
        assert kill_and_wait(process.pid, started - 1, SECONDS)
        assert process_is_alive(process.pid), "another process with this pid is not killed"
        assert kill_and_wait(process.pid, started, SECONDS)
        assert process_started(process.pid) is None, "a zombie is dead"


def test_waiting_for_a_process_that_lives_ends() -> None:
    with python(WAIT) as process:
        told(process)
        began = time.monotonic()
        assert not wait_until_gone(process.pid, None, 0.1)
        assert time.monotonic() - began < SECONDS


def test_a_name_with_brackets_does_not_hide_the_start() -> None:
    code = f"from supervisors.processes import name_process; name_process('a) Z 1 (b'); {WAIT}"
    with python(code) as process:
        told(process)
        assert psutil.Process(process.pid).name() == "a) Z 1 (b"
        assert process_is_alive(process.pid)


def test_the_processes_of_a_daemon_are_found_and_swept(tmp_path: Path) -> None:
    mine, other = Home(tmp_path / "mine"), Home(tmp_path / "mine too")
    ignores = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
    with (
        python(ignores, mine.path) as one,
        python(MORTAL_CHILD, mine.path) as two,
        python(WAIT, other.path) as three,
    ):
        told(one)
        child = told(two)
        told(three)
        assert {each.pid for each in daemon_processes(mine)} == {one.pid, two.pid, child}
        assert sweep(mine, spare=[one.pid]) in {1, 2}, "the child may have died with its parent"
        assert [each.pid for each in daemon_processes(mine)] == [one.pid]
        assert sweep(mine) == 1
        assert daemon_processes(mine) == []
        assert sweep(mine) == 0
        assert [each.pid for each in daemon_processes(other)] == [three.pid]


@pytest.mark.parametrize("number", FATAL_SIGNALS)
def test_fatal_signals_end_a_process_again(number: int) -> None:
    code = (
        "import os, signal; from supervisors.processes import reset_fatal_signals\n"
        f"signal.signal({number}, lambda *_: None); reset_fatal_signals(); os.kill(os.getpid(), {number})"
    )
    with python(f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{code}") as process:
        assert process.wait(SECONDS) == -number


def test_the_descriptor_limit_is_raised_within_reason() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        limit = raise_descriptor_limit()
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert limit >= before[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_is_nothing_to_reap_without_children() -> None:
    with python("from supervisors.processes import reap; print(len(reap()))") as process:
        assert told(process) == 0
        assert process.wait(SECONDS) == 0
