"""What became of a send through a platform: four answers, none of them a guess.

The rule behind them: a message counts as taken only when the provider said so in its documented words, and
as not taken only when that is proved or said. All between is ``Unknown`` and is never sent again by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What an outcome is about, and so what it says about the next message."""

    MESSAGE = "message"  #: this message or its recipient; others are unaffected
    CREDENTIAL = "credential"  #: the account's credential; every message of the device will fare the same
    CONFIG = "config"  #: how the device is set up (base URL, proxy, certificate)
    DEVICE = "device"  #: the phone behind the account (unlinked, off)
    ACCOUNT = "account"  #: the account at the provider (quota, rate, billing)
    SERVICE = "service"  #: the provider itself (unreachable)


@dataclass(frozen=True)
class Accepted:
    """The provider queued the message. It does not mean delivered.

    Attributes:
        provider_id: the provider's id of the message, None when it gives none.
        detail: the provider's own word for the state, for people.
    """

    provider_id: str | None
    detail: str = ""


@dataclass(frozen=True)
class Rejected:
    """The message was not taken, and sending it again unchanged will not help."""

    code: str
    reason: str
    scope: Scope


@dataclass(frozen=True)
class Retryable:
    """The message was certainly not taken; it may be sent again after ``after_seconds``.

    Attributes:
        code: a stable machine name.
        reason: a sentence for people.
        after_seconds: the wait before the next attempt.
        scope: what else must wait: with ``Scope.MESSAGE``, only what goes to the same recipient.
        growth: each further wait is this many times the one before.
    """

    code: str
    reason: str
    after_seconds: float
    scope: Scope
    growth: float = 2.0


@dataclass(frozen=True)
class Unknown:
    """Nobody can tell whether the message was taken. It is in doubt: never sent again, never failed over.

    Attributes:
        code: a stable machine name.
        reason: a sentence for people.
        lookup: the reference under which the provider can be asked about it; None: it cannot be asked.
        provider_id: the id that a reply names in spite of all, under which the provider may be asked, too.
    """

    code: str
    reason: str
    lookup: str | None = None
    provider_id: str | None = None


Outcome = Accepted | Rejected | Retryable | Unknown


class AccountState(StrEnum):
    """What a provider says about an account when asked without sending anything."""

    CONNECTED = "connected"  #: the credential is good and the phone is linked
    DISCONNECTED = "disconnected"  #: the phone must be linked again at the provider
    REFUSED = "refused"  #: the provider does not accept the credential
    UNKNOWN = "unknown"  #: the provider could not be asked, or its answer was not understood


@dataclass(frozen=True)
class AccountCheck:
    """The answer to a check of an account's credential and device."""

    state: AccountState
    detail: str = ""
