"""What every stand-in is: a pure judge of requests, given the accounts and records it may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.platforms.http import Answer, HttpRequest
    from simulator.platforms.records import Records, Send


@dataclass(frozen=True)
class Taken:
    """A send that is in order: what to record, and the answer once it is recorded."""

    sends: tuple[Send, ...]
    answer: Answer


class StandIn(ABC):
    """One platform's stand-in.

    Attributes:
        name: the platform's name.
        base_path: what its base URL ends with.
        default_account: an invented credential that is always known.
    """

    name: ClassVar[str]
    base_path: ClassVar[str]
    default_account: ClassVar[Mapping[str, str]]

    def __init__(self, records: Records) -> None:
        self.records = records

    @abstractmethod
    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer to ``request``, or the send it makes; ``connected``: the phone is linked."""

    @abstractmethod
    def refusal(self, fault: str) -> Answer:
        """Return the documented answer for ``failure-body``, ``bad-credential`` or ``disconnected``."""


def is_number(text: str) -> bool:
    """Say whether ``text`` is a number with its country code: digits alone."""
    return text.isascii() and text.isdigit() and 7 <= len(text) <= 15 and text[0] != "0"


def is_public_url(text: str) -> bool:
    """Say whether ``text`` has the form of an address the platform could fetch."""
    return text.startswith(("http://", "https://")) and len(text) > 10 and " " not in text
