"""The error codes of Meta's Cloud API and what each says of a message.

Facts: https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes (2026-05-15).
The code decides: titles change, and the HTTP status of a throttle is 429 or 400.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from actors.platforms.outcomes import Outcome, Rejected, Retryable, Scope, Unknown

#: Waits in seconds: after a throttle, and while the service or the account's server is in trouble.
_THROTTLED = 5.0
_SERVICE_TROUBLE = 30.0


class CloudApiError(IntEnum):
    """The codes that mean something to a sender."""

    AUTH_EXCEPTION = 0
    SERVICE_UNAVAILABLE_API = 2
    CAPABILITY_OR_PERMISSION = 3
    TOO_MANY_CALLS = 4
    PERMISSION_DENIED = 10
    PARAMETER_INVALID = 100
    TOKEN_EXPIRED = 190
    RESTRICTED_FOR_POLICY = 368
    CALLS_TOO_FAST = 613
    BUSINESS_RATE_LIMIT = 80007
    THROUGHPUT_REACHED = 130429
    PART_OF_AN_EXPERIMENT = 130472
    COUNTRY_RESTRICTED = 130497
    SOMETHING_WENT_WRONG = 131000
    PARAMETER_MISSING = 131008
    PARAMETER_VALUE_INVALID = 131009
    SERVICE_UNAVAILABLE = 131016
    RECIPIENT_IS_SENDER = 131021
    UNDELIVERABLE = 131026
    RECIPIENT_NOT_ALLOWED = 131030
    ACCOUNT_LOCKED = 131031
    PAYMENT_ISSUE = 131042
    NOT_REGISTERED = 131045
    RE_ENGAGEMENT = 131047
    SPAM_RATE_LIMIT = 131048
    ECOSYSTEM_LIMITED = 131049
    OPTED_OUT = 131050
    TYPE_UNSUPPORTED = 131051
    MEDIA_DOWNLOAD = 131052
    MEDIA_UPLOAD = 131053
    PAIR_RATE_LIMIT = 131056
    ACCOUNT_MAINTENANCE = 131057
    ACCOUNT_BLOCKED = 131064
    SERVER_BUSY = 133016


@dataclass(frozen=True)
class Meaning:
    """What a code comes to: a rejection, or a wait when ``after_seconds`` is given."""

    name: str
    scope: Scope
    after_seconds: float | None = None
    growth: float = 2.0


_CREDENTIAL = Meaning("credential_refused", Scope.CREDENTIAL)
_PERMISSION = Meaning("permission_missing", Scope.CREDENTIAL)
_THROTTLE = Meaning("throttled", Scope.ACCOUNT, _THROTTLED)
_SERVICE = Meaning("service_unavailable", Scope.SERVICE, _SERVICE_TROUBLE)
_POLICY = Meaning("blocked_by_policy", Scope.ACCOUNT)
_MESSAGE = Meaning("message_refused", Scope.MESSAGE)

_MEANINGS: dict[int, Meaning] = {
    CloudApiError.AUTH_EXCEPTION: _CREDENTIAL,
    CloudApiError.TOKEN_EXPIRED: _CREDENTIAL,
    CloudApiError.CAPABILITY_OR_PERMISSION: _PERMISSION,
    CloudApiError.PERMISSION_DENIED: _PERMISSION,
    CloudApiError.TOO_MANY_CALLS: _THROTTLE,
    CloudApiError.BUSINESS_RATE_LIMIT: _THROTTLE,
    CloudApiError.CALLS_TOO_FAST: _THROTTLE,
    CloudApiError.THROUGHPUT_REACHED: _THROTTLE,
    # Only this recipient waits, 1 s, 4 s, 16 s and so on, as documented.
    CloudApiError.PAIR_RATE_LIMIT: Meaning("pair_rate_limited", Scope.MESSAGE, 1.0, 4.0),
    CloudApiError.SERVICE_UNAVAILABLE_API: _SERVICE,
    CloudApiError.SERVICE_UNAVAILABLE: _SERVICE,
    CloudApiError.ACCOUNT_MAINTENANCE: _SERVICE,
    CloudApiError.SERVER_BUSY: _SERVICE,
    CloudApiError.SPAM_RATE_LIMIT: _POLICY,
    CloudApiError.RESTRICTED_FOR_POLICY: _POLICY,
    CloudApiError.ACCOUNT_LOCKED: _POLICY,
    CloudApiError.COUNTRY_RESTRICTED: _POLICY,
    CloudApiError.ACCOUNT_BLOCKED: _POLICY,
    CloudApiError.PAYMENT_ISSUE: Meaning("payment_missing", Scope.ACCOUNT),
    CloudApiError.NOT_REGISTERED: Meaning("number_not_registered", Scope.ACCOUNT),
    CloudApiError.PARAMETER_INVALID: _MESSAGE,
    CloudApiError.PARAMETER_MISSING: _MESSAGE,
    CloudApiError.PARAMETER_VALUE_INVALID: _MESSAGE,
    CloudApiError.RECIPIENT_IS_SENDER: _MESSAGE,
    CloudApiError.RECIPIENT_NOT_ALLOWED: _MESSAGE,
    CloudApiError.TYPE_UNSUPPORTED: _MESSAGE,
    CloudApiError.UNDELIVERABLE: Meaning("undeliverable", Scope.MESSAGE),
    CloudApiError.OPTED_OUT: Meaning("opted_out", Scope.MESSAGE),
    CloudApiError.PART_OF_AN_EXPERIMENT: Meaning("part_of_an_experiment", Scope.MESSAGE),
    CloudApiError.MEDIA_DOWNLOAD: Meaning("media_refused", Scope.MESSAGE),
    CloudApiError.MEDIA_UPLOAD: Meaning("media_refused", Scope.MESSAGE),
    CloudApiError.RE_ENGAGEMENT: Meaning("window_closed", Scope.MESSAGE),
    # Not before a day has passed; that is for people to decide, not for a queue.
    CloudApiError.ECOSYSTEM_LIMITED: Meaning("ecosystem_limited", Scope.MESSAGE),
}


def meaning_of(code: int) -> Meaning | None:
    """Return what an error code means; None: nothing that is known."""
    if 200 <= code <= 299:
        return _PERMISSION
    if 132000 <= code <= 132016:
        return Meaning("template_refused", Scope.MESSAGE)
    return _MEANINGS.get(code)


def knows(code: object) -> bool:
    """Say whether ``code``, as it stands in a reply, is an error of Meta's with a meaning of its own."""
    return (
        isinstance(code, int)
        and not isinstance(code, bool)
        and (code == CloudApiError.SOMETHING_WENT_WRONG or meaning_of(code) is not None)
    )


def outcome_of(code: int, said: str) -> Outcome | None:
    """Return the outcome of a send that was answered with an error code; None: the code is unknown."""
    reason = f"({code}) {said}" if said else f"error {code}"
    if code == CloudApiError.SOMETHING_WENT_WRONG:
        return Unknown("unknown_error", reason)
    meaning = meaning_of(code)
    if meaning is None:
        return None
    if meaning.after_seconds is None:
        return Rejected(meaning.name, reason, meaning.scope)
    return Retryable(meaning.name, reason, meaning.after_seconds, meaning.scope, meaning.growth)
