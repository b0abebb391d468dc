"""The stanzas the server and the phones send of their own accord, built in one place."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Iterable

from simulator.whatsapp.nodes import SERVER, Attribute, Content, Jid, Node
from simulator.whatsapp.ratchet import Bundle
from simulator.whatsapp.records import Companion, Phone


def new_id() -> str:
    """Return a fresh stanza id."""
    return secrets.token_hex(8).upper()


def now() -> int:
    """Return the time as stanzas carry it: whole seconds since the epoch."""
    return int(time.time())


def result(query: Node, content: Content = None) -> Node:
    """Answer a query."""
    return Node("iq", {"from": SERVER, "id": query.text("id"), "type": "result"}, content)


def error(query: Node, code: int, text: str) -> Node:
    """Answer a query with an error."""
    return Node(
        "iq",
        {"from": SERVER, "id": query.text("id"), "type": "error"},
        [Node("error", {"code": code, "text": text})],
    )


def ack_message(message: Node, *, code: int | None = None, participants_hash: str | None = None) -> Node:
    """Acknowledge a message, or refuse it with an error code."""
    return Node(
        "ack",
        {
            "class": "message",
            "id": message.text("id"),
            "from": message.jid("to"),
            "t": now(),
            "error": code,
            "phash": participants_hash,
        },
    )


def ack_receipt(receipt: Node) -> Node:
    """Acknowledge a receipt."""
    return Node(
        "ack",
        {
            "class": "receipt",
            "id": receipt.text("id"),
            "from": receipt.jid("to"),
            "type": receipt.text("type") or None,
        },
    )


def receipt(
    sender: Jid, message_id: str, kind: str = "", *, recipient: Jid | None = None, content: Content = None
) -> Node:
    """Return a receipt; an empty kind says that the message was delivered."""
    attributes: dict[str, Attribute | int | None] = {
        "from": sender,
        "id": message_id,
        "t": now(),
        "type": kind or None,
        "recipient": recipient,
    }
    return Node("receipt", attributes, content)


def stream_error(code: int | None = None, conflict: str | None = None) -> Node:
    """Return the end of a stream. On a conflict the real service leaves the code out."""
    content = [Node("conflict", {"type": conflict})] if conflict else None
    return Node("stream:error", {"code": code}, content)


def failure(reason: int, attributes: dict[str, Attribute | int | None] | None = None) -> Node:
    """Refuse a login."""
    return Node("failure", {"reason": reason, "location": "sim", "t": now(), **(attributes or {})})


def encrypted(kind: str, ciphertext: bytes, retry: int = 0) -> Node:
    """Return the element that carries a ciphertext."""
    return Node("enc", {"v": 2, "type": kind, "count": retry or None}, ciphertext)


def message_from_phone(phone: Phone, message_id: str, content: Node, *, name: str, peer: bool = False) -> Node:
    """Return a message of a phone to a companion; ``peer`` marks the account's own housekeeping."""
    return Node(
        "message",
        {
            "from": phone.lid,
            "id": message_id,
            "t": now(),
            "type": "text",
            "notify": name,
            "category": "peer" if peer else None,
            "sender_pn": None if peer else phone.jid,
        },
        [content],
    )


def keys(bundle: Bundle) -> list[Node]:
    """Return a bundle's keys as stanzas carry them."""
    nodes = [
        Node("type", {}, b"\x05"),
        Node("identity", {}, bundle.identity),
        Node(
            "skey",
            {},
            [
                Node("id", {}, bundle.signed_pre_key_id.to_bytes(3, "big")),
                Node("value", {}, bundle.signed_pre_key),
                Node("signature", {}, bundle.signature),
            ],
        ),
    ]
    if bundle.pre_key_id is not None and bundle.pre_key is not None:
        identifier = Node("id", {}, bundle.pre_key_id.to_bytes(3, "big"))
        nodes.append(Node("key", {}, [identifier, Node("value", {}, bundle.pre_key)]))
    return nodes


def registration(number: int) -> Node:
    """Return a registration id as stanzas carry it."""
    return Node("registration", {}, number.to_bytes(4, "big"))


def participants_hash(devices: Iterable[Jid]) -> str:
    """Return the hash of a list of devices by which a client learns that its own list is old."""
    names = sorted(f"{jid.user}.0:{jid.device}@{jid.server}" for jid in devices)
    digest = hashlib.sha256("".join(names).encode()).digest()
    return "2:" + base64.b64encode(digest[:6]).decode().rstrip("=")


def success(companion: Companion) -> Node:
    """Accept a login."""
    return Node("success", {"t": now(), "lid": companion.lid, "props": 1, "location": "sim", "abprops": 1})
