"""What every stand-in is: a pure judge of requests, given the accounts and records it may look at."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from simulator.platforms.http import Answer
from simulator.platforms.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.platforms.http import HttpRequest
    from simulator.platforms.records import Records, Send

#: What a send goes through, in order, as the stand-ins report it.
STAGES = ("sent", "delivered", "read")


@dataclass(frozen=True)
class Taken:
    """A send that is in order: what to record, and the answer once it is recorded.

    Attributes:
        sends: what to record.
        answer: the answer.
        callback_url: where the request itself asks for reports; "": where the account does.
    """

    sends: tuple[Send, ...]
    answer: Answer
    callback_url: str = ""


@dataclass(frozen=True)
class Callback:
    """One report, as the platform posts it."""

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_callback(value: Any, headers: Mapping[str, str] | None = None) -> Callback:
    """Return a report whose body is ``value`` as JSON."""
    return Callback(json.dumps(value).encode(), headers=headers or {})


class StandIn(ABC):
    """One platform's stand-in.

    Attributes:
        name: the platform's name.
        base_path: what its base URL ends with.
        default_account: an invented credential that is always known.
        rates: how fast an account may send, where that is documented and enforced by refusals.
    """

    name: ClassVar[str]
    base_path: ClassVar[str]
    default_account: ClassVar[Mapping[str, str]]

    def __init__(self, records: Records) -> None:
        self.records = records
        self.rates = Rates()

    @abstractmethod
    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer to ``request``, or the send it makes; ``connected``: the phone is linked."""

    @abstractmethod
    def refusal(self, fault: str) -> Answer | None:
        """Return the documented answer for ``failure-body``, ``bad-credential`` or ``disconnected``.

        None: the platform takes the message all the same, as it has no phone behind it or queues meanwhile.
        """

    def throttle(self) -> Answer:
        """Return the answer to a send that came too soon."""
        return Answer(429, b"Too Many Requests", "text/plain", {"Retry-After": "2"})

    def throttle_of_recipient(self) -> Answer:
        """Return the answer to a send that came too soon after others to its recipient."""
        return self.throttle()

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return the report of one of ``STAGES`` to ``url``; None: the platform sends none of it."""
        del send, stage, url
        return None

    def credentials_of(self, send: Send) -> dict[str, str]:
        """Return the credentials of the account that made ``send``."""
        return self.records.accounts(self.name).get(send.account, {})

    def account_with(self, **credentials: str) -> str | None:
        """Return the label of the account that has exactly these among its credentials."""
        for label, known in self.records.accounts(self.name).items():
            if all(value and known.get(name) == value for name, value in credentials.items()):
                return label
        return None

    def send_with_id(self, provider_id: str) -> Send | None:
        """Return the send that was given this id."""
        return next((send for send in self.records.sends(self.name) if send.id == provider_id), None)


def is_number(text: str) -> bool:
    """Say whether ``text`` is a number with its country code: digits alone."""
    return text.isascii() and text.isdigit() and 7 <= len(text) <= 15 and text[0] != "0"


def is_public_url(text: str) -> bool:
    """Say whether ``text`` has the form of an address the platform could fetch."""
    return text.startswith(("http://", "https://")) and len(text) > 10 and " " not in text


def fresh_number() -> str:
    """Return an id of digits alone, as some platforms give them."""
    return str(10**14 + secrets.randbelow(9 * 10**14))


def json_fields(request: HttpRequest) -> dict[str, Any] | None:
    """Return the JSON object of a request that says it is JSON; None: it is not, or a name is repeated."""
    if request.content_type != "application/json":
        return None
    try:
        value = json.loads(request.body, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is repeated")
    return fields


def texts_in(fields: Mapping[str, Any], *names: str) -> bool:
    """Say whether each of ``names`` is a text that is not empty."""
    return all(isinstance(fields.get(name), str) and fields[name] for name in names)
