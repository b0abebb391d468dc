"""What a message says: its padding, its protocol buffer, and the short form an inbox shows."""

from __future__ import annotations

import secrets
import zlib
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp.media import MediaReference
from simulator.whatsapp.ratchet import UndecryptableMessage

#: The kinds of media: field of the message, word in the key derivation.
_MEDIA_FIELDS = {
    "image": "imageMessage",
    "video": "videoMessage",
    "audio": "audioMessage",
    "document": "documentMessage",
}
#: The field "sync type" with the value 0, which clients require and Python leaves out because it is 0.
_INITIAL_BOOTSTRAP = b"\x08\x00"
#: Messages that wrap another one.
_WRAPPERS = ("documentWithCaptionMessage", "ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2")


@dataclass(frozen=True)
class ReadMessage:
    """A decrypted message: what an inbox shows of it.

    Attributes:
        kind: ``text``, ``image``, ``video``, ``audio``, ``document``, or the protocol's own word for others.
        destination: for a copy of what the account's companion sent, to whom; else empty.
        secret: the message secret in hexadecimal, or empty.
    """

    kind: str
    text: str = ""
    destination: str = ""
    secret: str = ""
    media: MediaReference | None = None


def pad(plaintext: bytes) -> bytes:
    """Return ``plaintext`` with 1 to 15 bytes that each say how many they are."""
    length = secrets.randbelow(15) + 1
    return plaintext + bytes([length]) * length


def unpad(padded: bytes) -> bytes:
    """Remove the padding.

    Raises:
        UndecryptableMessage: it is not as it should be.
    """
    length = padded[-1] if padded else 0
    if not 1 <= length <= 15 or len(padded) < length or padded[-length:] != bytes([length]) * length:
        raise UndecryptableMessage("the message is not padded as it should be")
    return padded[:-length]


def text_message(text: str) -> bytes:
    """Return a text message, unpadded."""
    message: bytes = schema.Message(conversation=text).SerializeToString()
    return message


def first_history(number_jid: str, name: str) -> bytes:
    """Return the first history a phone shares with a new companion: no chats, its own name."""
    history = schema.HistorySync(
        chunkOrder=1,
        progress=100,
        pushnames=[schema.Pushname(id=number_jid, pushname=name)],
    )
    notification = schema.Message.HistorySyncNotification(
        syncType=schema.Message.HistorySyncType.INITIAL_BOOTSTRAP,
        chunkOrder=1,
        progress=100,
        initialHistBootstrapInlinePayload=zlib.compress(_INITIAL_BOOTSTRAP + history.SerializeToString()),
    )
    protocol = schema.Message.ProtocolMessage(
        type=schema.Message.ProtocolMessage.Type.HISTORY_SYNC_NOTIFICATION,
        historySyncNotification=notification,
    )
    message: bytes = schema.Message(protocolMessage=protocol).SerializeToString()
    return message


def read_message(padded: bytes) -> ReadMessage:
    """Read a decrypted message.

    Raises:
        UndecryptableMessage: its padding or its protocol buffer is broken.
    """
    try:
        outer = schema.Message.FromString(unpad(padded))
    except DecodeError:
        raise UndecryptableMessage("the message is no protocol buffer") from None
    destination = ""
    message = outer
    if outer.HasField("deviceSentMessage"):
        destination = outer.deviceSentMessage.destinationJid
        message = outer.deviceSentMessage.message
    secret = message.messageContextInfo.messageSecret or outer.messageContextInfo.messageSecret
    message = _unwrap(message)
    for kind, field in _MEDIA_FIELDS.items():
        if message.HasField(field):
            part = getattr(message, field)
            return ReadMessage(kind, getattr(part, "caption", ""), destination, secret.hex(), _reference(kind, part))
    if message.HasField("conversation"):
        return ReadMessage("text", message.conversation, destination, secret.hex())
    if message.HasField("extendedTextMessage"):
        return ReadMessage("text", message.extendedTextMessage.text, destination, secret.hex())
    named = [field.name for field, _ in message.ListFields() if field.name != "messageContextInfo"]
    return ReadMessage(named[0] if named else "empty", "", destination, secret.hex())


def _unwrap(message: Any) -> Any:
    for wrapper in _WRAPPERS:
        if message.HasField(wrapper):
            return _unwrap(getattr(message, wrapper).message)
    return message


def _reference(kind: str, part: Any) -> MediaReference:
    return MediaReference(
        kind=kind,
        direct_path=part.directPath,
        key=part.mediaKey,
        sha256=part.fileSha256,
        encrypted_sha256=part.fileEncSha256,
        length=part.fileLength,
        mimetype=part.mimetype,
        file_name=getattr(part, "fileName", ""),
    )
