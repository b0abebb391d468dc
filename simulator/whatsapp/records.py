"""What the simulator remembers, as small values: phones, their companions, mail, inboxes."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.whatsapp.curve import KeyPair
from simulator.whatsapp.nodes import LID_SERVER, PHONE_SERVER, Jid

#: LIDs are the number plus this, so that thousands of seeded sessions can be written without asking anybody.
#: Real LIDs say nothing about the number; nothing outside the simulator may compute them.
_LID_OFFSET = 100_000_000_000_000
#: Numbers ending so are not on WhatsApp, unless they were added explicitly. Any other number is a recipient
#: that comes into being when it is first asked about.
UNKNOWN_NUMBER_ENDING = "000"


def lid_of(number: str) -> str:
    """Return the LID's user part for a phone number."""
    return str(int(number) + _LID_OFFSET)


def number_of(jid: Jid) -> str | None:
    """Return the phone number behind an address, or None when it is no account's."""
    if not jid.user.isdigit():
        return None
    if jid.server == PHONE_SERVER:
        return jid.user
    if jid.server != LID_SERVER or int(jid.user) <= _LID_OFFSET:
        return None
    return str(int(jid.user) - _LID_OFFSET)


def is_number(text: str) -> bool:
    """Tell whether ``text`` can be a phone number: 7 to 15 digits with a country code in front."""
    return text.isascii() and text.isdigit() and 7 <= len(text) <= 15 and text[0] != "0"


@dataclass(frozen=True)
class Phone:
    """A simulated phone: an account's primary device, with its own keys.

    A phone that is not ``powered`` neither decrypts nor answers until it is switched on again.
    """

    number: str
    identity: KeyPair
    signed_pre_key: KeyPair
    signature: bytes
    registration: int
    powered: bool = True

    @property
    def lid(self) -> Jid:
        """The account's address as others see it."""
        return Jid(lid_of(self.number), LID_SERVER)

    @property
    def jid(self) -> Jid:
        """The account's address made from its number."""
        return Jid(self.number, PHONE_SERVER)


@dataclass(frozen=True)
class Companion:
    """A linked device: what the server and the phone know of it, public keys only.

    ``has_history`` says that its phone has sent it the first history, ``has_uploaded`` that it has given the
    server one-time keys.
    """

    number: str
    device: int
    noise: bytes
    identity: bytes
    registration: int
    signed_pre_key_id: int
    signed_pre_key: bytes
    signature: bytes
    device_identity: bytes = b""
    has_history: bool = False
    has_uploaded: bool = False

    @property
    def jid(self) -> Jid:
        """Its address made from the number."""
        return Jid(self.number, PHONE_SERVER, self.device)

    @property
    def lid(self) -> Jid:
        """Its address as others see it."""
        return Jid(lid_of(self.number), LID_SERVER, self.device)

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it among all companions."""
        return self.number, self.device


@dataclass(frozen=True)
class Mail:
    """A ciphertext on its way to a phone.

    ``retry`` says that it is another try at a message the phone could not decrypt.
    """

    number: str
    sender: tuple[str, int]
    message_id: str
    destination: str
    kind: str
    ciphertext: bytes
    device_identity: bytes
    retry: int = 0


@dataclass(frozen=True)
class InboxEntry:
    """A message as a phone shows it. ``sent`` marks the copy of what the account's own companion sent."""

    number: str
    message_id: str
    sender: tuple[str, int]
    destination: str
    kind: str
    text: str
    secret: str
    time: float
    sent: bool = False
    media_sha256: str = ""
    mimetype: str = ""
    file_name: str = ""
    media_error: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the entry for the control socket; media keys only where there are media."""
        number, device = self.sender
        entry: dict[str, object] = {
            "id": self.message_id,
            "sender": number,
            "sender_jid": str(Jid(number, PHONE_SERVER, device)),
            "text": self.text,
            "kind": self.kind,
            "time": self.time,
            "secret": self.secret,
        }
        if self.sent:
            entry["to"] = self.destination
        if self.media_sha256 or self.media_error:
            entry |= {
                "media_sha256": self.media_sha256,
                "mimetype": self.mimetype,
                "file_name": self.file_name,
                "caption": self.text,
            }
        if self.media_error:
            entry["media_error"] = self.media_error
        return entry


@dataclass(frozen=True)
class Said:
    """A text a phone said to companions, kept so that it can be encrypted again when one asks for it."""

    message_id: str
    sender: str
    text: str
