"""What a WhatsApp client tells its device: the library's events as small values of our own.

Only ``client.py`` knows neonize; the device actor and the supervisor's policy know these.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Connected:
    """The session is logged in and can send."""


@dataclass(frozen=True)
class Disconnected:
    """The socket is gone; the library reconnects by itself."""


@dataclass(frozen=True)
class KeepAliveTimedOut:
    """A keep-alive ping went unanswered; ``errors`` counts them since the last answer."""

    errors: int


@dataclass(frozen=True)
class KeepAliveRestored:
    """A keep-alive ping was answered again."""


@dataclass(frozen=True)
class LoggedOut:
    """The phone or the server ended this session; the library has deleted it from the store."""

    code: int


@dataclass(frozen=True)
class StreamReplaced:
    """Another client connected with the same session."""


@dataclass(frozen=True)
class TemporarilyBanned:
    """The server refuses the account for a time, ``seconds`` from now (None: it did not say)."""

    code: int
    seconds: float | None


@dataclass(frozen=True)
class ClientOutdated:
    """The server refuses this version of the library (405)."""


@dataclass(frozen=True)
class ConnectRefused:
    """The server answered the login with a failure that has no event of its own (503 and others)."""

    code: int
    message: str


@dataclass(frozen=True)
class StreamFailed:
    """The server ended the stream with an error code that has no event of its own."""

    code: str


@dataclass(frozen=True)
class PairingQr:
    """A QR text to show; each lives about twenty seconds, the first about a minute."""

    text: str


@dataclass(frozen=True)
class PairingEnded:
    """Pairing ended without success (``timeout``, an error), as the library calls it."""

    outcome: str


@dataclass(frozen=True)
class Paired:
    """The phone linked this device: its companion JID (``user:device@s.whatsapp.net``) and LID."""

    jid: str
    lid: str


@dataclass(frozen=True)
class MessageReceived:
    """A message arrived; addresses are JIDs as the library gives them."""

    message_id: str
    chat: str
    sender: str
    sender_alternative: str
    from_me: bool
    timestamp: int
    text: str
    kind: str


@dataclass(frozen=True)
class ReceiptReceived:
    """A receipt arrived for one or more messages.

    ``kind`` is ``delivered``, ``read``, ``played``, ``sender`` (the account's own phone has it), ``retry`` or
    another of the protocol's words.
    """

    message_ids: tuple[str, ...]
    kind: str
    chat: str
    sender: str
    timestamp: int


@dataclass(frozen=True)
class SecretNotStored:
    """The library could not store the message secret of ``message_id`` and sends it regardless."""

    message_id: str


ClientEvent = (
    Connected
    | Disconnected
    | KeepAliveTimedOut
    | KeepAliveRestored
    | LoggedOut
    | StreamReplaced
    | TemporarilyBanned
    | ClientOutdated
    | ConnectRefused
    | StreamFailed
    | PairingQr
    | PairingEnded
    | Paired
    | MessageReceived
    | ReceiptReceived
    | SecretNotStored
)


@dataclass(frozen=True)
class Content:
    """What to send: a text, or media of ``kind`` (image, document, video, audio) with ``body`` as its caption."""

    kind: str
    body: str
    media: bytes = field(default=b"", repr=False)
    media_name: str = ""


@dataclass(frozen=True)
class Sent:
    """The server acknowledged the message."""

    message_id: str
    timestamp: int


class ClientError(Exception):
    """The client could not do what was asked; ``code`` is a stable machine name."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class NotSent(ClientError):
    """The message certainly never left this machine."""


class SendRefused(ClientError):
    """The server said no to this message: it was not delivered and will not be."""


class SendUnknown(ClientError):
    """Nobody can tell whether the message was delivered; evidence must settle it."""
