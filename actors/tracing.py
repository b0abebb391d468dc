"""What the router does for traces: it notes where accepted messages belong. Their spans are made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from actors.messages import MessageAccepted
from config.trace_context import TraceContext
from storage import traces
from storage.leases import holder_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from actors.messages import MessageRejected, SendMessage
    from config.home import Home
    from config.settings import Settings
    from storage.database import Connection


@dataclass(frozen=True)
class Tracing:
    """Notes the traced messages of one installation; ``share`` of the traces that begin with one are recorded."""

    owner: str
    share: float

    @classmethod
    def of(cls, home: Home, settings: Settings) -> Self | None:
        """Return what the settings ask for; None: nothing is traced."""
        return cls(holder_name(home), settings.traces_share) if settings.traces_endpoint else None

    def begin(self, connection: Connection) -> None:
        """Let what is accepted from now on be exported."""
        traces.begin(connection, self.owner)

    def note(
        self,
        connection: Connection,
        answered: Iterable[tuple[SendMessage, MessageAccepted | MessageRejected]],
        taken_at: datetime,
    ) -> None:
        """Note where messages belong, in the transaction that accepts them; not of those that were known already."""
        contexts = {}
        for message, answer in answered:
            if isinstance(answer, MessageAccepted) and not answer.repeated:
                context = message.trace or TraceContext.begin(self.share)
                if context.sampled:
                    contexts[answer.id] = context
        if contexts:
            traces.note(connection, self.owner, contexts, taken_at)
