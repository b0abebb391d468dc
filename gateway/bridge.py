"""The bridge from the thread that serves HTTP to the actor that exchanges messages with the router.

Requests lie in a queue, and a byte in a pipe wakes the actor, since a thread of its own must never send. An answer is
told apart by its request's id, so one that comes late or twice is nobody's. When another router takes over, it is asked
at once whatever the former one left unanswered: every request bears being asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import Any


class RouterBridge:
    """Carries requests to the router and answers back.

    ``exchange`` belongs to the event loop; everything else to the actor's thread.
    """

    def __init__(self) -> None:
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._outgoing: deque[Any] = deque()
        self._waiting: dict[str, tuple[Any, asyncio.Future[Any]]] = {}
        self._router: tuple[Any, str] | None = None

    # --- the event loop's side ---------------------------------------------------------------------------

    async def exchange(self, message: Any, seconds: float) -> Any | None:
        """Return the router's answer to ``message``, or None when none came within ``seconds``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[message.request] = (message, future)
        self._outgoing.append(message)
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the actor as well
            os.write(self._writable, b"!")
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(message.request, None)

    # --- the actor's side --------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """What the actor watches: it can be read when there is something to send."""
        return self._readable

    def router_is(self, address: Any, owner: str) -> None:
        """Note where the router is; a new one is asked again what nobody has answered yet."""
        if self._router is not None and self._router[1] == owner:
            return
        self._router = (address, owner)
        self._outgoing.clear()
        self._outgoing.extend(message for message, _ in list(self._waiting.values()))

    def outgoing(self) -> list[tuple[Any, Any]]:
        """Return (router's address, message) for each message that is to be sent now."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._readable, 4096):
                pass
        if self._router is None:
            return []  # they wait until one is up
        found = []
        while self._outgoing:
            message = self._outgoing.popleft()
            if message.request in self._waiting:
                found.append((self._router[0], message))
        return found

    def answered(self, answer: Any) -> None:
        """Hand an answer to whoever waits for it."""
        entry = self._waiting.get(answer.request)
        if entry is not None:
            future = entry[1]
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, answer)


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():
        future.set_result(answer)
