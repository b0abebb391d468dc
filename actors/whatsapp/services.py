"""What a shard lends to the devices it hosts: storage in threads of its own, the client library, settings.

Storage work waits while PostgreSQL is away and is done when it is back: an outage of the database costs time, and
neither an outcome nor a healthy connection. So every statement used here must bear being repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from actors.whatsapp.group_commit import GroupCommit
from actors.whatsapp.state_changes import StateChanges
from config.errors import StorageUnavailable
from config.home import Home
from config.logging import logger
from config.settings import Settings
from storage.credentials import CredentialSeal
from storage.database import Connection, Database
from storage.dispatch import Head
from storage.turns import Turn

if TYPE_CHECKING:
    from actors.whatsapp.dialing import DialGate
    from actors.whatsapp.flight_recorder import FlightRecorder
    from actors.whatsapp.library import ClientLibrary

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: Database work of one shard under way at once; it bounds the shard's connections.
DATABASE_THREADS = 2
#: How long to wait before asking PostgreSQL again, in seconds.
_STORAGE_PAUSE = 1.0


@dataclass
class Services:
    """One shard's services.

    Attributes:
        owner: this process instance, as it stands in the outbox's attempts.
        database: Salamander's tables.
        sessions: whatsmeow's tables.
        gate: the only door to WhatsApp, which keeps to the fleet's budget.
        recorder: notes which devices are inside the native library.
        loopback: whether WhatsApp is the one on this machine.
        states: where devices record their states.
    """

    home: Home
    settings: Settings
    owner: str
    database: Database
    sessions: Database
    seal: CredentialSeal
    loopback: bool
    library: ClientLibrary
    gate: DialGate
    recorder: FlightRecorder

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
        self._together = GroupCommit(self.database, self.owner, self.run)
        self.states = StateChanges(self.database, self.run)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run blocking storage work beside the devices; while PostgreSQL is away, wait and do it again."""
        waited = 0
        while True:
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._threads, function)
            except StorageUnavailable as error:
                if waited % 30 == 0:
                    logger().warning("Waiting for PostgreSQL", reason=error.sentence)
                waited += 1
                await asyncio.sleep(_STORAGE_PAUSE)
            else:
                if waited:
                    logger().info("PostgreSQL is back", seconds=waited * _STORAGE_PAUSE)
                return result

    async def store(
        self,
        function: Callable[Concatenate[Connection, Arguments], Result],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Run ``function(connection, …)`` in a transaction on Salamander's tables, and return when it is committed.

        What several devices store at the same moment is committed together.
        """
        return await self._together.store(lambda connection: function(connection, *arguments, **options))

    async def turn(self, turn: Turn) -> Head | None:
        """Do what a lane wants of the outbox, together with others; return what was found at its head."""
        return await self._together.turn(turn)

    async def look(
        self,
        function: Callable[Concatenate[Connection, Arguments], Result],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Run ``function(connection, …)`` on whatsmeow's tables."""

        def work() -> Result:
            with self.sessions.transaction() as connection:
                return function(connection, *arguments, **options)

        return await self.run(work)

    def close(self) -> None:
        """Close the connections and threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.database.close()
        self.sessions.close()
