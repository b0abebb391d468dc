"""What Linux offers to end processes for certain: death with the parent, adoption of orphans, start times.

Nothing here knows of actors. On other systems the calls that need Linux do nothing and say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from config.errors import SalamanderError
from config.home import DAEMON_VARIABLE, Home

if TYPE_CHECKING:
    from collections.abc import Collection

#: Options of prctl(2).
_SET_PARENT_DEATH_SIGNAL = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
#: The kernel keeps this many characters of a process's name.
_NAME_LENGTH = 15
#: How often a process that should be gone is looked at, in seconds.
_LOOK_SECONDS = 0.01
#: Descriptors that are enough for any process of ours; some systems have no limit worth the name, and
#: programs that close every possible descriptor then take minutes.
_ENOUGH_DESCRIPTORS = 65536

#: Signals that mean the process is broken. A Python handler for one of them returns to the broken
#: instruction, so the process spins for ever instead of dying.
FATAL_SIGNALS = (
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGSYS,
    signal.SIGTRAP,
)


def _prctl(option: int, value: int | bytes) -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent(parent: int | None = None, signal_number: int = signal.SIGKILL) -> bool:
    """Let the kernel send this process ``signal_number`` as soon as its parent dies.

    The parent is the *thread* that forked this process: it must live as long as its process does.

    Args:
        parent: the pid the parent must have. When it has died already, this process ends here and now.
        signal_number: what is sent.

    Returns:
        Whether the system can do so.

    """
    armed = _prctl(_SET_PARENT_DEATH_SIGNAL, int(signal_number))
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal_number)
    return armed


def become_subreaper() -> bool:
    """Adopt the orphans among this process's descendants. Returns whether the system can do so."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Give this process a name of at most 15 characters for ``ps`` and ``top``.

    Its arguments stay as they are: rewriting them (as setproctitle does) destroys the environment the Go
    library reads.
    """
    _prctl(_SET_NAME, name.encode()[:_NAME_LENGTH])


def reset_fatal_signals() -> None:
    """Let the signals of a broken process end it again, whoever installed a handler for them."""
    for number in FATAL_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def process_started(pid: int) -> float | None:
    """Return when process ``pid`` was started, or None when it is dead (a zombie is dead).

    The value (on Linux seconds since boot) is only good for telling a process from a later one with its pid.
    """
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
        except psutil.Error:
            return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the name, may hold spaces and brackets; the third is the state, the 22nd the start.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(fields[18]) / os.sysconf("SC_CLK_TCK")


def process_is_alive(pid: int, started: float | None = None) -> bool:
    """Tell whether ``pid`` is a living process, the one that began at ``started`` (see process_started)."""
    found = process_started(pid)
    return found is not None and (started is None or found == started)


def wait_until_gone(pid: int, started: float | None, seconds: float) -> bool:
    """Wait until the process is dead. Returns whether it is."""
    deadline = time.monotonic() + seconds
    while process_is_alive(pid, started):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def kill_and_wait(pid: int, started: float | None, seconds: float) -> bool:
    """SIGKILL the process that began at ``started`` and wait. Returns whether it is gone."""
    if process_is_alive(pid, started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return wait_until_gone(pid, started, seconds)


def daemon_processes(home: Home) -> list[psutil.Process]:
    """Return the living processes of the daemon on ``home``.

    They are known by the environment they were *executed* with (or their ancestor was, when merely forked):
    a variable set later in ``os.environ`` does not show. Processes we may not look at are not ours.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marked = process.environ().get(DAEMON_VARIABLE) == str(home.path)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sweep(home: Home, spare: Collection[int] = (), seconds: float = 10.0) -> int:
    """SIGKILL every process of the daemon on ``home`` and wait until they are gone.

    Args:
        home: whose daemon.
        spare: pids left alone; the caller always is.
        seconds: how long to wait.

    Returns:
        How many processes were killed.

    Raises:
        SalamanderError: some are still there.

    """
    spared = {*spare, os.getpid()}
    killed: set[int] = set()
    deadline = time.monotonic() + seconds
    while left := [process for process in daemon_processes(home) if process.pid not in spared]:
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise SalamanderError(
                f"Processes of the daemon on {home.path} do not end: {pids}.",
                "Look at them with ps; they may belong to another user.",
                code="processes_left",
            )
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        time.sleep(_LOOK_SECONDS)
    return len(killed)


def reap() -> dict[int, int]:
    """Collect the dead children of this process.

    Never call it in an actor: Thespian learns of its children's deaths by collecting them itself.

    Returns:
        The wait status of each by pid, for callers that started some of them on purpose.

    """
    collected: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            collected[pid] = status
    return collected


def raise_descriptor_limit() -> int:
    """Allow this process and its children as many open files as an ordinary user may have, within reason.

    Returns:
        The limit that now holds.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft


def own_process_started() -> float:
    """Return when this process was started (see process_started)."""
    started = process_started(os.getpid())
    return 0.0 if started is None else started


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - thousands: names are enough


def memory_mb() -> float:
    """Return this process's anonymous memory in MB: its heaps, without files and libraries; see proc(5)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0
