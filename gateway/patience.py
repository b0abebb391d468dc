"""How long a connection may take to say what it wants: uvicorn minds idle ones, this one those that dawdle."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long the head of a request may take to arrive, in seconds.
HEAD_SECONDS = 10.0


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on who opens a connection, or begins a request, and never finishes its head."""

    _head_task: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._mind_the_head()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait for the rest of a head."""
        super().data_received(data)
        self._mind_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        self._stop_minding()

    def _mind_the_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_minding()  # a request is under way
        elif self._head_task is None and self.timeout_keep_alive_task is None:
            self._head_task = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def _stop_minding(self) -> None:
        if self._head_task is not None:
            self._head_task.cancel()
            self._head_task = None

    def _hang_up(self) -> None:
        self._head_task = None
        under_way = self.cycle is not None and not self.cycle.response_complete
        if not under_way and not self.transport.is_closing():
            self.transport.close()
