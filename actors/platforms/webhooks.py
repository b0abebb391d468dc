"""What providers tell us unasked: how far a message came, and whether it is really them who say so."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from actors.platforms.replies import header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.platforms.outcomes import Scope


class Stage(StrEnum):
    """How far a message came. Reports are repeated and overtake each other: only a later stage counts."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


@dataclass(frozen=True)
class DeliveryReport:
    """One message's stage as its provider tells it, by webhook or when asked.

    Attributes:
        stage: how far it came.
        provider_id: the provider's id of the message; None where the report names it otherwise.
        reference: our own reference, where the provider sends it back.
        alias: another name of the provider for the message. A report with an id and an alias ties them together;
            later ones may carry the alias alone.
        code: the provider's code of a failure, or "".
        reason: the provider's words, for people.
        scope: what a failure is about; more than the message: the sender itself is in trouble.
    """

    stage: Stage
    provider_id: str | None = None
    reference: str | None = None
    alias: str | None = None
    code: str = ""
    reason: str = ""
    scope: Scope | None = None


def is_signed_in_hex(
    headers: Mapping[str, str], name: str, body: bytes, key: str, algorithm: str, prefix: str = ""
) -> bool:
    """Say whether the header ``name`` holds ``prefix`` and the HMAC of ``body`` under ``key`` in hex.

    An empty key verifies nothing. The comparison takes the same time wherever the two differ.
    """
    if not key:
        return False
    expected = prefix + hmac.new(key.encode(), body, getattr(hashlib, algorithm)).hexdigest()
    given = header(headers, name).strip()
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
