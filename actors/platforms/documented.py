"""Replies as a provider documents them: the marker of a success, and examples with what they come to.

Both are data, apart from the code that reads replies: the documentation is made from them, and the tests hold
the reading code to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.platforms.replies import id_of, value_at

if TYPE_CHECKING:
    from actors.platforms.outcomes import Outcome, Scope

#: Where a fact comes from: the platform's owner, third parties' code, or our own reasoning.
DOCUMENTED, OBSERVED, ASSUMED = "documented", "observed", "assumed"


@dataclass(frozen=True)
class SuccessMarker:
    """What the body of a success holds, always together with a 2xx status.

    Attributes:
        paths: where it stands (``messages.0.id``); one of them is enough.
        values: what stands there; empty: the message's id, whatever it is.
    """

    paths: tuple[str, ...]
    values: tuple[object, ...] = ()

    def holds(self, reply: object) -> bool:
        """Say whether ``reply``, a body read as JSON, holds the marker."""
        return any(self._holds(value_at(reply, path)) for path in self.paths)

    def _holds(self, found: object) -> bool:
        if not self.values:
            return id_of(found) is not None
        # 1 == True in Python, but no provider means it.
        return any(type(found) is type(value) and found == value for value in self.values)

    def __str__(self) -> str:
        wanted = " or ".join(f"`{_shown(value)}`" for value in self.values) or "the message's id"
        return f"{' or '.join(f'`{path}`' for path in self.paths)} holds {wanted}"


@dataclass(frozen=True)
class DocumentedReply:
    """A reply to a send as it is known, and the outcome it comes to.

    Attributes:
        meaning: what it says, in words.
        status: its HTTP status.
        body: its body: a JSON value, or text that is none.
        outcome: the class of the outcome.
        scope: what the outcome is about; None for a success and where nothing is known.
        source: where the reply is known from.
    """

    meaning: str
    status: int
    body: Any
    outcome: type[Outcome]
    scope: Scope | None = None
    source: str = DOCUMENTED


def _shown(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value).replace("'", '"')
