"""What a platform takes and how fast: facts of its documentation, applied elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every kind of message that any platform may carry without arrangements made at the provider.
KINDS = ("text", "image", "document", "video", "audio")
#: A message whose words were approved by WhatsApp beforehand; only platforms of the official API know it.
TEMPLATE = "template"

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Retrying:
    """How a message that was certainly not taken is tried again; the first wait and its growth come with the outcome.

    Attributes:
        longest_seconds: no wait is longer, unless the provider asks for it.
    """

    longest_seconds: float = 300.0


@dataclass(frozen=True)
class Limits:
    """What a platform takes. None: its documentation names no limit.

    Attributes:
        kinds: the kinds of message.
        text_characters: the longest text.
        caption_characters: the longest caption.
        captioned_kinds: the kinds that may carry a caption.
        media_bytes: the largest media of a kind; the provider measures it, as only it fetches the file.
        media_suffixes: the file types of a kind; a kind that is missing takes any.
        groups: a group may be the recipient.
        messages_per_second: how many messages one account may send.
        seconds_per_recipient: the time between two messages of one account to the same recipient.
        recipient_burst: how many messages to one recipient may go ahead of that pace.
        max_in_flight: requests of one account under way at once, at most, whatever ``platform_in_flight`` says; our own
            choice where none is documented.
        retry: the waits of what may be tried again.
    """

    kinds: frozenset[str]
    text_characters: int | None = None
    caption_characters: int | None = None
    captioned_kinds: frozenset[str] = frozenset()
    media_bytes: Mapping[str, int] = field(default_factory=dict)
    media_suffixes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    groups: bool = False
    messages_per_second: float | None = None
    seconds_per_recipient: float | None = None
    recipient_burst: int = 1
    max_in_flight: int = 4
    retry: Retrying = Retrying()


@dataclass(frozen=True)
class Timeouts:
    """How long a platform gets, in seconds: to be reached, and to answer once reached."""

    connect_seconds: float
    reply_seconds: float

    @property
    def total_seconds(self) -> float:
        """The longest one request may take from its start to its reply's last byte."""
        return self.connect_seconds + self.reply_seconds


def media_of_at_most(size: int) -> dict[str, int]:
    """Return the same limit, in bytes, for every kind of media."""
    return dict.fromkeys(KINDS[1:], size)
