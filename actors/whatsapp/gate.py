"""Keeps calls into the WhatsApp library apart that would crash the process if they met.

The Go side of neonize 0.5.2 keeps its clients in three plain maps. ``Neonize()`` (which connects) and ``Stop()``
write them without a lock, and every other call reads them when it begins. Go ends the whole process with
"concurrent map writes" (or "concurrent map read and map write") when it notices that two of these overlap.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.whatsapp.threads import DaemonThreads

Result = TypeVar("Result")

#: How long after a call entered the library its look at the maps is certainly over (it takes microseconds).
_ENTRY_SECONDS = 0.005
#: How long a change keeps other calls waiting at most. The writes happen in a connect's first milliseconds, but
#: nothing tells when they are done before its network connection stands; sends must not wait for that.
_CALLS_WAIT_SECONDS = 0.25


class RegistryGate:
    """Lets calls through together, changes one at a time, and no call begin while a change may be writing."""

    def __init__(self, threads: DaemonThreads) -> None:
        self._threads = threads
        self._changing = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._entering = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a call that reads the maps when it begins, in a thread of its own."""
        while not self._open.is_set():  # it may have closed again before this task got its turn
            await self._open.wait()
        self._entering += 1
        self._quiet.clear()
        loop = asyncio.get_running_loop()

        def enter() -> Result:
            loop.call_soon_threadsafe(loop.call_later, _ENTRY_SECONDS, self._entered)
            return function(*arguments)

        try:
            returning = self._threads.run(enter)
        except BaseException:
            # No thread could be started. Nothing has entered, and no change may wait for it for ever.
            self._entered()
            raise
        return await returning

    def _entered(self) -> None:
        self._entering -= 1
        if self._entering == 0:
            self._quiet.set()

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold everybody else off while the maps are written; leave as soon as they certainly are."""
        async with self._changing:
            self._open.clear()
            reopening = asyncio.get_running_loop().call_later(_CALLS_WAIT_SECONDS, self._open.set)
            try:
                await self._quiet.wait()
                yield
            finally:
                reopening.cancel()
                self._open.set()
