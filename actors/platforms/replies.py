"""How replies of every platform are read: bytes to JSON, text made safe, what a bare HTTP status proves."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from actors.platforms.outcomes import AccountCheck, AccountState, Outcome, Rejected, Retryable, Scope, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The wait after a throttle that names none, in seconds.
THROTTLE_SECONDS = 30.0
#: The longest wait a provider may ask for; longer ones are a mistake in its reply, not a plan. In seconds.
LONGEST_THROTTLE_SECONDS = 86_400.0
#: The wait while a person must link the phone again, in seconds: nothing heals sooner.
DEVICE_AWAY_SECONDS = 300.0
#: The wait while an account has nothing left to send with, in seconds.
ACCOUNT_EXHAUSTED_SECONDS = 3600.0

#: How much of a provider's text is kept for people.
_LONGEST_TEXT = 300
#: A provider's id longer than this is not an id.
_LONGEST_ID = 200


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body`` whatever its declared type, or None.

    Providers serve JSON as text/html, so the bytes decide. Hostile nesting and numbers count as "no object".
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def value_at(value: object, path: str) -> object:
    """Return what stands at ``path`` in a JSON value (``messages.0.id``), or None."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 4:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def objects_in(value: object) -> list[dict[str, Any]]:
    """Return the JSON objects of a list, or the one object itself."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def all_text_of(value: object) -> str:
    """Return every text inside a JSON value on one line, for providers whose errors have many shapes."""
    found: list[str] = []
    waiting = [value]
    while waiting and sum(map(len, found)) < _LONGEST_TEXT:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(text_of(value))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
    return text_of(" ".join(found))


def holds_any(said: str, texts: tuple[str, ...]) -> bool:
    """Say whether a provider's text holds one of ``texts`` (lower case)."""
    words = said.lower()
    return any(text in words for text in texts)


def text_of(value: object) -> str:
    """Return a provider's text fit for one log line and a database column; "" for anything but text."""
    if not isinstance(value, str):
        return ""
    printable = "".join(character if character.isprintable() else " " for character in value[:_LONGEST_TEXT])
    return printable.strip()


def id_of(value: object) -> str | None:
    """Return a provider's message id as text, or None when ``value`` cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**_LONGEST_ID else ""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_ID:
        return None
    return value if value.isprintable() else None


def header(headers: Mapping[str, str], name: str) -> str:
    """Return the header ``name`` whatever its case, or ""."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), "")


def retry_after(headers: Mapping[str, str], default: float = THROTTLE_SECONDS) -> float:
    """Return the wait that ``Retry-After`` asks for, in seconds.

    A date is measured against the reply's own ``Date``, so that clocks which disagree change nothing.
    """
    asked = header(headers, "Retry-After").strip()
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        return min(max(float(asked), 1.0), LONGEST_THROTTLE_SECONDS)
    try:
        until = parsedate_to_datetime(asked)
        seconds = (until - parsedate_to_datetime(header(headers, "Date"))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return default
    return min(max(seconds, 1.0), LONGEST_THROTTLE_SECONDS)


def judge_status(status: int, headers: Mapping[str, str], said: str = "") -> Outcome:
    """Return what an HTTP status proves by itself, once the body held no verdict of the provider.

    Args:
        status: the HTTP status.
        headers: the reply's headers.
        said: what the provider wrote, for people.
    """
    reason = f"HTTP {status}: {said}" if said else f"HTTP {status} without a verdict of the provider"
    if 300 <= status < 400:
        return Rejected("redirected", f"{reason}; the base URL is not the API's own", Scope.CONFIG)
    if status == 429:
        return Retryable("throttled", reason, retry_after(headers), Scope.ACCOUNT)
    if status in {401, 403}:
        return Rejected("credential_refused", reason, Scope.CREDENTIAL)
    if status in {400, 404, 413, 415, 422}:
        return Rejected("request_refused", reason, Scope.MESSAGE)
    return Unknown("no_verdict", reason)


def judge_check_status(status: int, said: str = "") -> AccountCheck:
    """Return what an HTTP status says about an account, once the body did not say how it is."""
    if status in {401, 403}:
        return AccountCheck(AccountState.REFUSED, said or f"HTTP {status}")
    return AccountCheck(AccountState.UNKNOWN, f"HTTP {status} without the account's state")
