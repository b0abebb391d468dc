"""The router as the gateway's handlers see it: what they ask, gathered where that is faster.

Single sends that come while others are on their way wait for those and go together next: under load one commit carries
many of them, and alone each goes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from actors.asking import ASK_SECONDS, PAUSE_SECONDS, is_transient, keyed, no_answer, refusal_of
from actors.messages import BatchAnswer, Done, MessageAccepted, MessageRejected, Ping, Pong, SendBatch, SendMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.requests import Request
    from gateway.bridge import RouterBridge

#: How long a request may take, restarts of the router included, in seconds.
_DEADLINE_SECONDS = 30.0
#: Single sends that are gathered at most, by number and by characters of text: the router is everybody's.
_GATHERED = 250
_GATHERED_CHARACTERS = 1_000_000
#: How long those are waited for who were just answered together and may come again together, in seconds: one batch of
#: all of them is better than two that take turns.
_LINGER_SECONDS = 0.003
#: Requests on their way to the router at once; Thespian does not bear many (a sender's 20 stall all its targets).
_ON_THE_WAY = 8
#: The code of an answer that blames no message: one of a gathered batch may have broken the router for the others.
_INTERNAL = "internal"


class RouterClient:
    """Asks the router, again under the same id or key until it answers. For one event loop."""

    def __init__(self, bridge: RouterBridge, *, seconds: float = _DEADLINE_SECONDS) -> None:
        self._bridge = bridge
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_ON_THE_WAY)
        self._gathered: deque[tuple[SendMessage, asyncio.Future[Any]]] = deque()
        self._expected = 1
        self._all_here = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def send(self, message: SendMessage) -> MessageAccepted:
        """Have a message sent; it is committed when this returns.

        Raises:
            Refused: it was rejected; nothing was changed.
            StorageUnavailable, NoAnswer: nobody can tell; the same key may be sent again.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gathered.append((keyed(message), future))
        if len(self._gathered) >= self._expected:
            self._all_here.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_gathered())
        answer = await future
        if isinstance(answer, MessageAccepted):
            return answer
        raise refusal_of(answer)

    async def send_batch(self, messages: Sequence[SendMessage]) -> list[MessageAccepted | MessageRejected]:
        """Have up to 500 messages sent, committed together; return one answer for each, in order.

        Raises:
            Refused: there are too many.
            StorageUnavailable, NoAnswer: nobody can tell; the same keys may be sent again.
        """
        answer = await self._ask(SendBatch(tuple(keyed(message) for message in messages)))
        if isinstance(answer, BatchAnswer):
            return list(answer.answers)
        raise refusal_of(answer)

    async def request(self, message: Request) -> str:
        """Have the router do something else, once, and return what it says of it.

        Raises:
            Refused: it was not done; nothing was changed.
            StorageUnavailable, NoAnswer: nobody can tell.
        """
        answer = await self._ask(message)
        if isinstance(answer, Done):
            return answer.detail
        raise refusal_of(answer)

    async def answers(self, seconds: float = 2.0) -> bool:
        """Return whether the router is there."""
        return isinstance(await self._bridge.exchange(Ping(), seconds), Pong)

    async def _send_gathered(self) -> None:
        """Send what has gathered, batch after batch, until nothing is left."""
        try:
            while self._gathered:
                taken = self._take()
                try:
                    answers = await self._ask_together([message for message, _ in taken])
                except Exception as error:  # noqa: BLE001 - each of those who wait must learn of it
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), answer in zip(taken, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
                await self._linger(len(taken) + len(self._gathered))
        finally:
            self._sender = None

    async def _linger(self, expected: int) -> None:
        """Wait a moment for the ``expected`` ones to gather; one alone is not waited for."""
        if expected <= max(1, len(self._gathered)):
            return
        self._expected = expected
        self._all_here.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._all_here.wait()

    def _take(self) -> list[tuple[SendMessage, asyncio.Future[Any]]]:
        taken = [self._gathered.popleft()]
        characters = len(taken[0][0].text)
        while self._gathered and len(taken) < _GATHERED:
            characters += len(self._gathered[0][0].text)
            if characters > _GATHERED_CHARACTERS:
                break
            taken.append(self._gathered.popleft())
        return taken

    async def _ask_together(self, messages: list[SendMessage]) -> list[Any]:
        answers = await self.send_batch(messages)
        for position, answer in enumerate(answers):
            if len(messages) > 1 and isinstance(answer, MessageRejected) and answer.code == _INTERNAL:
                answers[position : position + 1] = await self.send_batch([messages[position]])
        return list(answers)

    async def _ask(self, message: Any) -> Any:
        """Ask the router until it answers; every request bears being asked twice."""
        deadline = time.monotonic() + self._seconds
        answer: Any = None
        while (left := deadline - time.monotonic()) > 0:
            async with self._slots:
                answer = await self._bridge.exchange(message, min(ASK_SECONDS, left)) or answer
            if answer is not None and not is_transient(answer):
                return answer
            await asyncio.sleep(PAUSE_SECONDS)
        if answer is not None:
            return answer
        raise no_answer(self._seconds)
