"""Workers: threads that do one thing to whatever they are given, started as they are needed."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Work = TypeVar("Work")


class Workers(Generic[Work]):
    """At most ``count`` threads. Nobody waits for what comes of the work, so it costs no futures.

    Args:
        count: how many.
        work: what they do; it must not raise.
    """

    def __init__(self, count: int, work: Callable[[Work], None]) -> None:
        self._count = count
        self._work = work
        self._given: SimpleQueue[tuple[Work] | None] = SimpleQueue()
        self._started = 0

    def give(self, work: Work, under_way: int) -> None:
        """Give work; ``under_way``: how much there is with this, so that a thread is there for each."""
        if self._started < min(under_way, self._count):
            self._started += 1
            threading.Thread(target=self._serve, name=f"worker-{self._started}", daemon=True).start()
        self._given.put((work,))

    def leave(self) -> None:
        """Let every thread end once what was given is done."""
        for _ in range(self._started):
            self._given.put(None)

    def _serve(self) -> None:
        while (given := self._given.get()) is not None:
            self._work(given[0])
