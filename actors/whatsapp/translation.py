"""Turns neonize's event messages (protobuf) and whatsmeow's log lines into values of our own. Pure."""

from __future__ import annotations

import re
from typing import Any

from actors.whatsapp.addresses import Address
from actors.whatsapp.events import (
    ClientEvent,
    ClientOutdated,
    Connected,
    ConnectRefused,
    Disconnected,
    KeepAliveRestored,
    KeepAliveTimedOut,
    LoggedOut,
    MessageReceived,
    Paired,
    PairingEnded,
    ReceiptReceived,
    StreamFailed,
    StreamReplaced,
    TemporarilyBanned,
)

#: Protocol codes of neonize's ``ConnectFailureReason`` (its own numbering is 1 to 10).
_FAILURE_CODES = {1: 400, 2: 401, 3: 402, 4: 403, 5: 406, 6: 405, 7: 409, 8: 500, 9: 501, 10: 503}
#: Protocol codes of neonize's ``TempBanReason``.
_BAN_CODES = {1: 101, 2: 102, 3: 103, 4: 104, 5: 106}
#: The protocol's words for neonize's ``ReceiptType``. It gives number 8 (its "server error") to ``played-self``.
_RECEIPT_KINDS = {
    1: "delivered",
    2: "sender",
    3: "retry",
    4: "read",
    5: "read-self",
    6: "played",
    7: "played-self",
    8: "played-self",
    9: "inactive",
    10: "peer_msg",
    11: "hist_sync",
}
#: The fields of a WhatsApp message that carry its content: (field, our word for it).
_CONTENTS = (
    ("imageMessage", "image"),
    ("videoMessage", "video"),
    ("audioMessage", "audio"),
    ("documentMessage", "document"),
    ("stickerMessage", "sticker"),
    ("locationMessage", "location"),
    ("contactMessage", "contact"),
    ("reactionMessage", "reaction"),
)
#: How neonize 0.5.2 reports an event that it cannot encode; after it, no event of that client arrives any more.
_NOT_ENCODABLE = re.compile(r"required field (?:\w+\.)*?(\w+)\.\w+ not set")
_ATTRIBUTE = re.compile(r'\b(\w+)="([^"]*)"')


def address_of(jid: Any) -> str:
    """Return neonize's JID message as text; empty when it names nobody."""
    return str(Address(jid.User, jid.Server, jid.Device)) if jid.User else ""


def translate(name: str, message: Any, *, own_lid: str = "") -> ClientEvent | None:
    """Return our value for one of neonize's events.

    Args:
        name: the event's class, as ``PairStatus``.
        message: the event.
        own_lid: the account's LID, which neonize tells apart from its pairing event.

    Returns:
        None for an event that says nothing to us.
    """
    match name:
        case "Connected":
            return Connected()
        case "Disconnected":
            return Disconnected()
        case "KeepAliveTimeout":
            return KeepAliveTimedOut(int(message.ErrorCount))
        case "KeepAliveRestored":
            return KeepAliveRestored()
        case "LoggedOut":
            return LoggedOut(_FAILURE_CODES.get(message.Reason, 0))
        case "StreamReplaced":
            return StreamReplaced()
        case "TemporaryBan":
            return TemporarilyBanned(_BAN_CODES.get(message.Code, 0), _seconds(message.Expire))
        case "ClientOutdated":
            return ClientOutdated()
        case "ConnectFailure":
            return ConnectRefused(_FAILURE_CODES.get(message.Reason, 0), message.Message)
        case "StreamError":
            return StreamFailed(message.Code)
        case "PairStatus":
            if message.Status == message.SUCCESS:
                return Paired(address_of(message.ID), own_lid)
            return PairingEnded(message.Error or "error")
        case "Message":
            return _message(message)
        case "Receipt":
            return _receipt(message)
    return None


def _message(message: Any) -> MessageReceived:
    source = message.Info.MessageSource
    kind, text = content_of(message.Message)
    return MessageReceived(
        message_id=message.Info.ID,
        chat=address_of(source.Chat),
        sender=address_of(source.Sender),
        sender_alternative=address_of(source.SenderAlt),
        from_me=bool(source.IsFromMe),
        timestamp=int(message.Info.Timestamp) // 1000,  # neonize gives milliseconds here, seconds elsewhere
        text=text,
        kind=kind,
    )


def content_of(message: Any) -> tuple[str, str]:
    """Return a WhatsApp message's kind and its text or caption."""
    if message.HasField("documentWithCaptionMessage"):
        message = message.documentWithCaptionMessage.message
    if message.HasField("conversation"):
        return "text", str(message.conversation)
    if message.HasField("extendedTextMessage"):
        return "text", str(message.extendedTextMessage.text)
    for name, kind in _CONTENTS:
        if message.HasField(name):
            part = getattr(message, name)
            return kind, str(getattr(part, "caption", "") or getattr(part, "text", ""))
    return "other", ""


def _receipt(message: Any) -> ReceiptReceived:
    source = message.MessageSource
    return ReceiptReceived(
        message_ids=tuple(message.MessageIDs),
        kind=_RECEIPT_KINDS.get(message.Type, "other"),
        chat=address_of(source.Chat),
        sender=address_of(source.Sender),
        timestamp=int(message.Timestamp),
    )


def _seconds(value: float) -> float | None:
    return float(value) if value > 0 else None


def lost_event(error: str, failure: str) -> ClientEvent:
    """Return the event that the library could not encode, and stopped over.

    Args:
        error: what ``connect()`` raised, long after it had connected.
        failure: the login failure that was logged before it, as XML (see :func:`failure_node`); may be empty.
    """
    found = _NOT_ENCODABLE.search(error)
    attributes = dict(_ATTRIBUTE.findall(failure))
    match found and found[1]:
        case "TemporaryBan":
            return TemporarilyBanned(_number(attributes.get("code")), _seconds(_number(attributes.get("expire"))))
        case "ConnectFailure":
            return ConnectRefused(_number(attributes.get("reason")), attributes.get("message", ""))
    return StreamFailed("library_stopped")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


#: Log lines that tell what no event does, or what an event may fail to tell.
_SECRET_NOT_STORED = re.compile(r"^Failed to store message secret key for outgoing message (\w+)")
_NOT_ENCRYPTED = re.compile(r"^Failed to encrypt (\w+) for (\S+):")
_LOGIN_RETRIED = re.compile(r"^Got (\d+)/(.*) connect failure, assuming automatic reconnect")
_LOGIN_ENDED = re.compile(r"^Got (\d+)\b.* connect failure, sending LoggedOut event")
_LOGIN_FAILED = re.compile(r"^(?:Temporary ban|Unknown) connect failure: (<failure\b.*)", re.DOTALL)
_PAIRED_NOT_RECONNECTED = "Failed to reconnect after 515 code"


def secret_not_stored(line: str) -> str | None:
    """Return the ID of the message whose secret a log line says could not be stored."""
    match = _SECRET_NOT_STORED.match(line)
    return match[1] if match else None


def not_encrypted(line: str) -> tuple[str, str] | None:
    """Return (message ID, device's JID) of a copy that a log line says was left out of a message."""
    match = _NOT_ENCRYPTED.match(line)
    return (match[1], match[2]) if match else None


def failure_node(line: str) -> str | None:
    """Return the login failure that a log line quotes, as XML."""
    match = _LOGIN_FAILED.match(line)
    return match[1] if match else None


def logged_event(line: str) -> ClientEvent | None:
    """Return what a log line tells that no event will."""
    if match := _LOGIN_RETRIED.match(line):
        return ConnectRefused(int(match[1]), match[2])
    if line.startswith(_PAIRED_NOT_RECONNECTED):
        return StreamFailed("515")
    return None


def logged_ending(line: str) -> LoggedOut | None:
    """Return the end of the session that a log line tells; normally an event tells it too, a moment later."""
    match = _LOGIN_ENDED.match(line)
    return LoggedOut(int(match[1])) if match else None
