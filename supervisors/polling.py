"""How the actor system's loop waits for descriptors: one system call a round.

Thespian makes a new selector in every round of its loop. Python's default one costs a system call for making it, one
for each descriptor, one for waiting and one for closing; this one costs one in all.
"""

from __future__ import annotations

import errno
import math
import os
import select
from typing import NamedTuple

EVENT_READ = 1
EVENT_WRITE = 2

_READABLE = ~select.POLLOUT
_WRITABLE = ~select.POLLIN


class Ready(NamedTuple):
    """A descriptor that something can be done with."""

    fd: int


class DefaultSelector:
    """Takes the place, and has the methods, of ``selectors.DefaultSelector`` as Thespian uses it: for one look."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wanted: dict[int, int] = {}

    def register(self, descriptor: int, events: int) -> None:
        """Wait for a descriptor as well.

        Raises:
            ValueError: it is none (its socket was closed).
        """
        if descriptor < 0:
            raise ValueError(f"invalid descriptor: {descriptor}")
        wanted = (select.POLLIN if events & EVENT_READ else 0) | (select.POLLOUT if events & EVENT_WRITE else 0)
        self._wanted[descriptor] = self._wanted.get(descriptor, 0) | wanted
        self._poll.register(descriptor, self._wanted[descriptor])

    def select(self, timeout: float | None = None) -> list[tuple[Ready, int]]:
        """Return what can be read or written (also what was hung up), at the latest after ``timeout`` seconds.

        Raises:
            OSError: one of the descriptors is not open.
        """
        milliseconds = None if timeout is None else max(0, math.ceil(timeout * 1000))
        found = []
        for descriptor, told in self._poll.poll(milliseconds):
            if told & select.POLLNVAL:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            events = (EVENT_READ if told & _READABLE else 0) | (EVENT_WRITE if told & _WRITABLE else 0)
            found.append((Ready(descriptor), events))
        return found

    def close(self) -> None:
        """Nothing is held."""
