"""What stands in a device's mailbox, and what passes between a device and its supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from actors.whatsapp.events import ClientEvent


@dataclass(frozen=True)
class Refresh:
    """Reload the stored session: from the supervisor, the operator, or a send that found no healthy client."""

    cause_code: str
    cause: str
    attempt: int
    request: str = ""


@dataclass(frozen=True)
class Pair:
    """Link a phone: by QR, or by a code to type when ``number`` is given."""

    number: str | None
    request: str


@dataclass(frozen=True)
class Pause:
    """Close the client and let messages wait."""


@dataclass(frozen=True)
class Unlink:
    """Log out at the server and forget the session: the device was removed."""


@dataclass(frozen=True)
class Depart:
    """Move to another shard: end when nothing is under way any more."""


@dataclass(frozen=True)
class Check:
    """Ask WhatsApp whether a number is there, and note its answer."""

    number: str


@dataclass(frozen=True)
class Work:
    """There may be a message on the lane."""


@dataclass(frozen=True)
class Stranded:
    """There are attempts that nobody has been at for ``seconds``: settle them."""

    seconds: float


@dataclass(frozen=True)
class Deadline:
    """A passing state lasted too long, unless the state changed since (``era``)."""

    cause_code: str
    era: int


@dataclass(frozen=True)
class Unwell:
    """A send found that the library hangs with its client of generation ``generation``."""

    generation: int


@dataclass(frozen=True)
class SendingFailed:
    """Sending ended with an error that nobody foresaw; the actor fails with it, and its parent acts."""

    error: BaseException


@dataclass(frozen=True)
class Happened:
    """The client of generation ``generation`` reports an event."""

    generation: int
    event: ClientEvent


DeviceMessage = (
    Refresh | Pair | Pause | Unlink | Depart | Check | Work | Stranded | Deadline | Unwell | SendingFailed | Happened
)


@dataclass(frozen=True)
class Decision:
    """What the supervisor decided about a trouble: the state, its words, and when something is tried next."""

    state: str
    words: str
    next_attempt_in: float | None
    wait_for_library: bool = False
    probe: bool = False


class Supervisor(Protocol):
    """What a device needs of the supervisor it reports to."""

    def decide(self, device_id: int, cause_code: str, detail: str = "", ban_seconds: float | None = None) -> Decision:
        """Decide about a trouble; refreshes it calls for arrive in the device's mailbox by themselves."""

    def came_online(self, device_id: int) -> None:
        """Note that the device is online: pending refreshes are off."""

    def forget(self, device_id: int) -> None:
        """Call off whatever is pending for the device (paused, removed, being paired)."""

    def refresh_is_pending(self, device_id: int) -> bool:
        """Return whether a refresh is on its way to the device."""
