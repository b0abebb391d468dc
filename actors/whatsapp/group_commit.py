"""Group commit: what many devices store at the same moment is committed together.

When a shard's devices all lose their connections, each has its row to write; one transaction for all of them costs
PostgreSQL one commit. Nobody waits for it: what comes while one transaction is under way goes into the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from config.errors import StorageUnavailable
from storage.database import Connection, Database
from storage.dispatch import Head
from storage.turns import Turn, take

Result = TypeVar("Result")

#: More than this many pieces of work are not committed together: each waits for all of them.
_MOST_TOGETHER = 100


@dataclass
class _Piece:
    """Work to do in a transaction, and where its outcome goes. ``tried``: it was begun before."""

    work: Callable[[Connection], Any] | Turn
    outcome: asyncio.Future[Any]
    tried: bool = False


class GroupCommit:
    """Does pieces of storage work, many in one transaction: lanes' turns all at once, others in the order they came.

    Args:
        database: where.
        owner: this process instance, as it stands in the outbox's attempts.
        run: runs blocking work beside the event loop; while PostgreSQL is away it waits, and does it again.
    """

    def __init__(
        self, database: Database, owner: str, run: Callable[[Callable[[], list[Any]]], Awaitable[list[Any]]]
    ) -> None:
        self._database = database
        self._owner = owner
        self._run = run
        self._waiting: list[_Piece] = []
        self._working: asyncio.Task[None] | None = None

    async def store(self, work: Callable[[Connection], Result]) -> Result:
        """Do ``work(connection)`` and return its result once it is committed. It must bear being repeated."""
        result: Result = await self._done(work)
        return result

    async def turn(self, turn: Turn) -> Head | None:
        """Do what a lane wants, and return what was found at its head once that is committed."""
        head: Head | None = await self._done(turn)
        return head

    async def _done(self, work: Callable[[Connection], Any] | Turn) -> Any:
        piece = _Piece(work, asyncio.get_running_loop().create_future())
        self._waiting.append(piece)
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await piece.outcome

    async def _work(self) -> None:
        while self._waiting:
            pieces = self._waiting[:_MOST_TOGETHER]
            del self._waiting[:_MOST_TOGETHER]
            try:
                outcomes = await self._run(lambda pieces=pieces: self._commit(pieces))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - it is handed to whoever asked
                outcomes = [error] * len(pieces)
            for piece, outcome in zip(pieces, outcomes, strict=True):
                _settle(piece, outcome)

    def _commit(self, pieces: list[_Piece]) -> list[Any]:
        """Return each piece's result, or the exception that it raised."""
        again = any(piece.tried for piece in pieces)
        for piece in pieces:
            piece.tried = True
        turns = [_wanted_still(piece.work, piece) for piece in pieces if isinstance(piece.work, Turn)]
        try:
            with self._database.transaction() as connection:
                heads = iter(take(connection, self._owner, turns, again=again) if turns else ())
                return [next(heads) if isinstance(piece.work, Turn) else piece.work(connection) for piece in pieces]
        except StorageUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - it is handed to whoever asked
            if len(pieces) == 1:
                return [error]
        # One of them failed, and with it the transaction: each gets its own.
        return [outcome for piece in pieces for outcome in self._commit([piece])]


def _wanted_still(turn: Turn, piece: _Piece) -> Turn:
    """Return what is still wanted of a turn: nobody would send what is claimed for one who has stopped waiting."""
    return replace(turn, secret=None) if piece.outcome.cancelled() else turn


def _settle(piece: _Piece, outcome: Any) -> None:
    if piece.outcome.done():
        return  # who asked has stopped waiting
    if isinstance(outcome, BaseException):
        piece.outcome.set_exception(outcome)
    else:
        piece.outcome.set_result(outcome)
