"""How a process of the actor system begins: independent of its parent's affairs, and bound to die with it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from supervisors.processes import die_with_parent, name_process, process_is_alive, reset_fatal_signals

if TYPE_CHECKING:
    import socket

#: How long a new Admin waits until the process that started it has adopted it, in seconds.
_ADOPTION_SECONDS = 10.0
#: The instance number Thespian gives its logger process.
_LOGGER = -1


class Closable(Protocol):
    """Something that holds sockets."""

    def close(self) -> None:
        """Close them in this process, without shutting their connections down."""


#: What holds this process's sockets. A forked process finds its parent's here.
open_sockets: weakref.WeakSet[Closable] = weakref.WeakSet()


@dataclass
class AdminBirth:
    """What the process that starts an Admin hands on to it through the fork.

    Attributes:
        starter: its pid; the Admin dies with it. None where orphans cannot be adopted.
        starter_since: when it was started.
        report: a pipe; the Admin writes there that it listens, or why it cannot.
        reservation: the socket that holds the Admin's port until the Admin does.

    """

    starter: int | None
    starter_since: float | None
    report: int
    reservation: socket.socket

    #: Set while an Admin is being started.
    current: ClassVar[AdminBirth | None] = None

    def tie(self) -> None:
        """Wait until the starter is this process's parent, then die with it.

        Thespian forks its Admin twice. Until the process between has ended, it is the parent, and tying the
        Admin to it would kill the Admin.
        """
        if self.starter is None:
            return
        deadline = time.monotonic() + _ADOPTION_SECONDS
        while os.getppid() != self.starter:
            if time.monotonic() > deadline or not process_is_alive(self.starter, self.starter_since):
                os._exit(1)
            time.sleep(0.001)
        die_with_parent(self.starter)

    def tell(self, **report: Any) -> None:
        """Write to the starter, once."""
        with contextlib.suppress(OSError):
            os.write(self.report, json.dumps(report).encode())
        os.close(self.report)


def begin_process(instance: int | None) -> AdminBirth | None:
    """Make a freshly forked process of the actor system independent of, and mortal with, its parent.

    Args:
        instance: the number its parent gave it; None: it is the Admin.

    Returns:
        The circumstances of its birth, when it is the Admin.

    """
    birth = AdminBirth.current if instance is None else None
    if birth:
        birth.tie()
        birth.reservation.close()
        name_process("sal-admin")
    elif parent := multiprocessing.parent_process():
        die_with_parent(parent.pid)
        if instance == _LOGGER:
            name_process("sal-logger")
    AdminBirth.current = None
    for inherited in list(open_sockets):
        inherited.close()
    open_sockets.clear()
    # The parent's handlers would swallow our signals, and its wake-up descriptor would get them.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    reset_fatal_signals()
    return birth
