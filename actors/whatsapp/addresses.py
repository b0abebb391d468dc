"""WhatsApp's addresses: JIDs as text, in parts."""

from __future__ import annotations

from dataclasses import dataclass

#: Accounts named by phone number.
PHONE_SERVER = "s.whatsapp.net"
#: Accounts named by WhatsApp's own number, which hides the phone number.
LID_SERVER = "lid"
GROUP_SERVER = "g.us"


@dataclass(frozen=True)
class Address:
    """A JID: ``user@server``, or ``user:device@server`` for one companion of an account."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}" if self.user else self.server

    @property
    def is_companion(self) -> bool:
        """Whether this names one paired companion of a phone number (a stored session can exist for it)."""
        return self.server == PHONE_SERVER and self.device > 0 and self.user.isdigit()


def names_companion(text: str) -> bool:
    """Return whether a text is the JID of one paired companion of a phone number."""
    try:
        return parse_address(text).is_companion
    except ValueError:
        return False


def parse_address(text: str) -> Address:
    """Read a JID, or a phone number in digits with or without ``+``.

    Raises:
        ValueError: it is neither.
    """
    if "@" not in text:
        digits = text.removeprefix("+")
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"{text!r} is neither a phone number nor a JID")
        return Address(digits, PHONE_SERVER)
    account, _, server = text.rpartition("@")
    user, colon, device = account.partition(":")
    # An older form has an agent between user and device, as 6012.0:3; nothing sends it today.
    user = user.partition(".")[0]
    if not user or not server or (colon and not (device.isascii() and device.isdigit())):
        raise ValueError(f"{text!r} is not a JID")
    return Address(user, server, int(device) if device else 0)
