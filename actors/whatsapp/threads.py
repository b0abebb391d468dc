"""Threads for calls that block in the WhatsApp library, possibly for ever."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_Work = Callable[[], None]


class DaemonThreads:
    """Runs blocking calls in threads that neither run out nor keep the process from ending.

    The standard executor does both: a connected client holds a thread for its whole life, a send may hold one
    for 75 s, and the interpreter joins its threads at exit. Here a call takes an idle thread, or a new one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[queue.SimpleQueue[_Work]] = []
        self._lock = threading.Lock()
        self._started = 0

    @property
    def started(self) -> int:
        """How many threads were started so far (idle ones are used again)."""
        return self._started

    def run(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Call ``function(*arguments)`` in a thread; the future belongs to the running event loop.

        Cancelling the future abandons the call, it does not stop it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only where Result admits it

        def work() -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = function(*arguments)
            except BaseException as raised:  # noqa: BLE001  # handed to whoever awaits the future
                error = raised
            # A loop that was closed meanwhile has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        self._idle_thread().put(work)
        return future

    def _idle_thread(self) -> queue.SimpleQueue[_Work]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            self._started += 1
            number = self._started
        inbox: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(inbox,), name=f"{self._name}-{number}", daemon=True).start()
        return inbox

    def _serve(self, inbox: queue.SimpleQueue[_Work]) -> None:
        while True:
            work = inbox.get()
            work()
            del work  # an idle thread must not keep the last call's arguments alive
            with self._lock:
                self._idle.append(inbox)
