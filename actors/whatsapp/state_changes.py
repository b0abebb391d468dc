"""The state changes of a shard's devices: what comes at the same moment goes to the database in one statement.

When a shard's devices all lose their connections, each has its row to write. Nobody waits for others to come: what
comes while one statement is under way goes into the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from config.logging import logger
from storage import devices
from storage.database import Database
from storage.devices import Device, StateChange

_Rows = dict[int, Device]


@dataclass(frozen=True)
class _Awaited:
    """A change, and where the device's row goes when it is recorded."""

    change: StateChange
    recorded: asyncio.Future[Device | None]


class StateChanges:
    """Records states in the order they came.

    Args:
        database: where.
        run: runs blocking work beside the event loop; while PostgreSQL is away it waits, and does it again.
    """

    def __init__(self, database: Database, run: Callable[[Callable[[], _Rows]], Awaitable[_Rows]]) -> None:
        self._database = database
        self._run = run
        self._waiting: list[_Awaited] = []
        self._working: asyncio.Task[None] | None = None

    async def record(self, change: StateChange) -> Device | None:
        """Record a change; return the device as it is then, or None when it was removed."""
        awaited = _Awaited(change, asyncio.get_running_loop().create_future())
        self._waiting.append(awaited)
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await awaited.recorded

    async def _work(self) -> None:
        while self._waiting:
            together, self._waiting = first_of_each_device(self._waiting)
            await self._record_all(together)

    async def _record_all(self, together: list[_Awaited]) -> None:
        try:
            rows = await self._run(lambda: self._write([each.change for each in together]))
        except Exception as error:  # noqa: BLE001 - it is handed to whoever asked
            if len(together) > 1:
                # One of them cannot be recorded, and with it none was: each gets a statement of its own.
                logger().warning("State changes are recorded one by one", reason=repr(error))
                for each in together:
                    await self._record_all([each])
            elif not together[0].recorded.done():
                together[0].recorded.set_exception(error)
            return
        for each in together:
            if not each.recorded.done():  # else who asked has stopped waiting
                each.recorded.set_result(rows.get(each.change.device_id))

    def _write(self, changes: list[StateChange]) -> _Rows:
        with self._database.statements() as connection:
            return devices.set_states(connection, changes)


def first_of_each_device(waiting: list[_Awaited]) -> tuple[list[_Awaited], list[_Awaited]]:
    """Return each device's first change, and the rest: one statement writes a row only once."""
    first: dict[int, _Awaited] = {}
    rest = [each for each in waiting if first.setdefault(each.change.device_id, each) is not each]
    return list(first.values()), rest
