"""What every part of the gateway needs: the home, the settings, a way to read, and a way to ask the router."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request

from gateway.metrics.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.home import Home
    from config.settings import Settings
    from gateway.router_client import RouterClient
    from gateway.tracing.requests import AnsweredRequests
    from storage.credentials import CredentialSeal
    from storage.database import Connection, Database

#: Database connections of the gateway, at most, and so transactions at once.
CONNECTIONS = 6

_Found = TypeVar("_Found")


@dataclass
class Context:
    """One gateway's surroundings. It holds nothing that must survive: what was accepted is a row.

    Attributes:
        database: at most ``CONNECTIONS`` connections; use it through :meth:`read`.
        router: takes every change.
        seal: closes credentials before they leave for the router.
        loopback: whether the simulator runs, so that addresses on this machine may be used.
        counts: what this process counts for the metrics.
        answered: takes the requests that are traced; None: none are.
    """

    home: Home
    settings: Settings
    database: Database
    router: RouterClient
    seal: CredentialSeal
    loopback: bool
    counts: Counts = field(default_factory=Counts)
    answered: AnsweredRequests | None = None
    _threads: anyio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._threads = anyio.CapacityLimiter(CONNECTIONS)

    async def read(self, look: Callable[[Connection], _Found]) -> _Found:
        """Return what ``look`` finds in one transaction, without holding up the event loop.

        Raises:
            StorageUnavailable: PostgreSQL is away.
        """

        def run() -> _Found:
            with self.database.transaction() as connection:
                return look(connection)

        return await anyio.to_thread.run_sync(run, limiter=self._threads)


async def _context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


#: The context, for a handler that asks for it.
Here = Annotated[Context, Depends(_context_of)]
