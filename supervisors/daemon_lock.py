"""The lock that a home's one daemon holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from config.daemon import read_daemon_file
from config.errors import DaemonAlreadyRunning
from config.home import Home


@contextlib.contextmanager
def daemon_lock(home: Home) -> Iterator[None]:
    """Hold the home's daemon lock. It is a POSIX lock: forked children do not inherit it, death releases it.

    Raises:
        DaemonAlreadyRunning: another watchdog holds it.
    """
    descriptor = os.open(home.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        daemon = read_daemon_file(home)
        raise DaemonAlreadyRunning(home.path, daemon.pid if daemon else None) from None
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(home: Home) -> bool:
    """Return whether a watchdog holds this home's lock (it may still be starting or stopping)."""
    try:
        descriptor = os.open(home.daemon_lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
