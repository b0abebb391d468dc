"""PostgreSQL's processes: run as whom, tied to whose life, and found again after a crash."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from config.errors import ConfigurationInvalid, StorageUnavailable

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: The command names under which processes of a server or of its creation are known to the kernel.
_COMMANDS = frozenset({"postgres", "postmaster", "initdb"})
#: How long a killed process may take to vanish (it may be inside an uninterruptible write), in seconds.
_KILLED_SECONDS = 15.0
_POLL_SECONDS = 0.01
#: `prctl` option: the signal this process gets when the thread that started it ends (Linux, sys/prctl.h).
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Account:
    """The unprivileged account the server runs as when we are root, which PostgreSQL refuses to run as."""

    name: str
    uid: int
    gid: int


def server_account(data: Path, user: str) -> Account | None:
    """Return whom to run the server as: the owner of existing data, else ``user``; None unless we are root.

    Raises:
        ConfigurationInvalid: there is no such user, or it is root itself.

    """
    if os.geteuid() != 0:
        return None
    try:
        owner = data.stat().st_uid if data.exists() else 0
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationInvalid(
            f"There is no user {owner or user} for the embedded PostgreSQL to run as.",
            "Create that user, or run Salamander as an ordinary user instead of root.",
        ) from None
    if entry.pw_uid == 0:
        raise ConfigurationInvalid("The embedded PostgreSQL cannot run as root.", "Name an unprivileged user for it.")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def give_to(account: Account | None, path: Path) -> None:
    """Make ``path`` belong to the server's account (to nobody else than us when there is none)."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


@dataclass(frozen=True)
class Way:
    """How a program of PostgreSQL reaches its data directory."""

    #: The directory's name for the program's arguments.
    name: str
    #: The working directory to start the program in.
    start_in: Path
    #: What the program must inherit for the name to work.
    descriptors: tuple[int, ...] = ()


@contextlib.contextmanager
def way_to(directory: Path, account: Account | None) -> Iterator[Way]:
    """Open a way to ``directory`` for a program run as ``account``, valid for programs spawned inside.

    A home may lie below directories the account cannot enter (root's own home is 0700). The kernel's link to
    an open directory leads there without asking the directories above. (The link to the working directory
    would, too, but up to release 15 the programs leave and re-enter their working directory by its path.)
    """
    if account is None or sys.platform != "linux":
        yield Way(str(directory), directory)
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Way(f"/proc/self/fd/{descriptor}", Path("/"), (descriptor,))
    finally:
        os.close(descriptor)


def spawn(
    command: Sequence[str | Path],
    start_in: Path,
    account: Account | None,
    *,
    death_signal: signal.Signals,
    output: int,
    inherited: Iterable[int] = (),
) -> subprocess.Popen[str]:
    """Start a program of PostgreSQL as ``account``, in a session of its own.

    Linux sends it ``death_signal`` when the *thread* that called this ends, so call it from the main thread,
    in a process without other threads (Python code runs between fork and exec).

    Args:
        command: the program and its arguments.
        start_in: its working directory, entered before privileges are dropped.
        account: whom to become, or None to stay who we are.
        death_signal: what it gets when we die.
        output: where its standard output and error go (a descriptor, or ``subprocess.PIPE``).
        inherited: further descriptors it may use.

    Raises:
        StorageUnavailable: it could not be started.

    """
    try:
        return subprocess.Popen(
            command,
            cwd=start_in,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=tuple(inherited),
            start_new_session=True,
            umask=0o077,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGTZ": "UTC"},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=_tie_to_parent(death_signal),  # noqa: PLW1509  (must happen between setuid and exec)
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        who = f" as user {account.name}" if account else ""
        raise StorageUnavailable(
            f"{command[0]} could not be started{who}: {reason}.",
            "Run Salamander as an ordinary user, or set database_url to a PostgreSQL of yours.",
        ) from error


def _tie_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above: no signal will come
            os._exit(1)

    return tie


def processes_in(directories: Sequence[Path]) -> list[psutil.Process]:
    """Return PostgreSQL's living processes that work in one of ``directories``.

    Every process of a server has its data directory as working directory, whoever its parent is by now, so
    this finds back-ends whose postmaster was killed, and mistakes no recycled process id for one of them.
    """
    names = {os.path.realpath(directory) for directory in directories}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() in _COMMANDS and process.cwd() in names:
                found.append(process)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill ``processes`` and wait until they are gone; those that were our children are reaped.

    Raises:
        StorageUnavailable: one survives.

    """
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for process in processes:
        if not wait_gone(process, _KILLED_SECONDS):
            raise StorageUnavailable(
                f"PostgreSQL's process {process.pid} cannot be killed; it may be waiting for a disk.",
                "Look at the system's log for disk errors.",
            )
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def wait_gone(process: psutil.Process, seconds: float) -> bool:
    """Wait at most ``seconds`` for a process to end; return whether it did."""
    deadline = time.monotonic() + seconds
    while not is_gone(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process has ended; one that nobody has reaped yet has ended, too."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
