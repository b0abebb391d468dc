"""What the server answers to queries (IQ stanzas) of linked companions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from simulator.whatsapp import stanzas
from simulator.whatsapp.curve import verify_pre_key
from simulator.whatsapp.nodes import LID_SERVER, Attribute, Content, Jid, MalformedStanza, Node
from simulator.whatsapp.phones import bundle_of
from simulator.whatsapp.records import Companion, Phone, number_of

if TYPE_CHECKING:
    from simulator.whatsapp.network import Network

#: Where media are uploaded to and downloaded from.
_MEDIA_HOST = "mmg.whatsapp.net"
#: How long a client may use what it was told about the media hosts, in seconds.
_MEDIA_SECONDS = 3600
#: What a new companion is told of its keys on the server. A client that hears 0 makes 812 keys, which takes most
#: of a second; a client that hears this makes 50 when it has none itself.
_COUNT_BEFORE_UPLOAD = 50
_PRIVACY_CATEGORIES = ("last", "online", "profile", "status", "readreceipts", "groupadd", "calladd")


class _NotFound(Exception):
    """What a query asks for does not exist."""


_Query = Callable[["Network", Companion, Node], Content]


def answer(network: Network, companion: Companion, stanza: Node) -> Node:
    """Answer a query; one that nobody wrote an answer for gets an empty result, and is counted.

    Raises:
        MalformedStanza: the query is not as it should be.
    """
    if not stanza.text("id") or stanza.text("type") not in ("get", "set"):
        raise MalformedStanza("a query without an id or a type")
    first = stanza.children[0].tag if stanza.children else ""
    namespace = stanza.text("xmlns")
    known = _ANSWERS.get((namespace, first)) or _ANSWERS.get((namespace, ""))
    if known is None:
        network.statistics.count(f"unknown_query {namespace} {first}")
        return stanzas.result(stanza)
    try:
        return stanzas.result(stanza, known(network, companion, stanza))
    except _NotFound:
        return stanzas.error(stanza, 404, "item-not-found")


def _nothing(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion, stanza
    return None


# Keys


def _count_pre_keys(network: Network, companion: Companion, stanza: Node) -> Content:
    del stanza
    count = network.store.accounts.count_companion_pre_keys(*companion.key)
    if not companion.has_uploaded:
        count = _COUNT_BEFORE_UPLOAD
    return [Node("count", {"value": count})]


def _upload_pre_keys(network: Network, companion: Companion, stanza: Node) -> Content:
    signed = stanza.need("skey")
    identity = stanza.need("identity").data(32)
    signed_pre_key, signature = signed.need("value").data(32), signed.need("signature").data(64)
    if stanza.need("type").data() != b"\x05" or identity != companion.identity:
        raise MalformedStanza("pre-keys of another identity than the linked one")
    if not verify_pre_key(identity, signed_pre_key, signature):
        raise MalformedStanza("a signed pre-key that its identity did not sign")
    pre_keys = [
        (int.from_bytes(key.need("id").data(3), "big"), key.need("value").data(32))
        for key in stanza.need("list").children
    ]
    network.store.accounts.save_companion(
        replace(
            companion,
            registration=int.from_bytes(stanza.need("registration").data(4), "big"),
            signed_pre_key_id=int.from_bytes(signed.need("id").data(3), "big"),
            signed_pre_key=signed_pre_key,
            signature=signature,
            has_uploaded=True,
        )
    )
    network.store.accounts.add_companion_pre_keys(*companion.key, pre_keys)
    network.statistics.count("pre_key_uploads")
    return None


def _digest_keys(network: Network, companion: Companion, stanza: Node) -> Content:
    """Tell a client which of its keys the server has, so that it need not upload them again."""
    del stanza
    pre_keys = network.store.accounts.companion_pre_keys(*companion.key)
    hashed = companion.identity + companion.signed_pre_key + companion.signature
    # SHA-1 is what clients compute here; it compares two lists of public keys.
    digest = hashlib.sha1(hashed + b"".join(key for _, key in pre_keys), usedforsecurity=False).digest()
    bundle = bundle_of(companion, None)
    listed = [Node("id", {}, identifier.to_bytes(3, "big")) for identifier, _ in pre_keys]
    content = [
        stanzas.registration(companion.registration),
        *stanzas.keys(bundle),
        Node("list", {}, listed),
        Node("hash", {}, digest),
    ]
    return [Node("digest", {}, content)]


def _hand_out_keys(network: Network, companion: Companion, stanza: Node) -> Content:
    del companion
    return [Node("list", {}, [_bundle_of(network, user.jid("jid")) for user in stanza.need("key").children])]


def _bundle_of(network: Network, jid: Jid) -> Node:
    number = number_of(jid)
    phone = network.phones.find(number) if number else None
    device = network.store.accounts.companion(number, jid.device) if number and jid.device else None
    if phone is None or (jid.device and device is None):
        return Node("user", {"jid": jid}, [Node("error", {"code": 404, "text": "item-not-found"})])
    bundle = network.phones.companion_bundle(device) if device else network.phones.bundle(phone)
    content = [stanzas.registration(bundle.registration), *stanzas.keys(bundle)]
    if device is not None and device.device_identity:
        content.append(Node("device-identity", {}, device.device_identity))
    return Node("user", {"jid": jid}, content)


# Accounts


def _look_up(network: Network, companion: Companion, stanza: Node) -> Content:
    """Answer what a client asks about accounts: whether they exist, their LID, their devices."""
    del companion
    request = stanza.need("usync")
    asked = {query.tag: query for query in request.need("query").children}
    users = [_user(network, asked, user) for user in request.need("list").children]
    attributes: dict[str, Attribute | int | None] = {
        "sid": request.text("sid"),
        "mode": request.text("mode"),
        "index": 0,
        "last": "true",
        "context": request.text("context"),
    }
    content = [Node("result", {}, [Node(tag, {}) for tag in asked]), Node("list", {}, users)]
    return [Node("usync", attributes, content)]


def _user(network: Network, asked: dict[str, Node], user: Node) -> Node:
    contact = user.child("contact")
    if contact is not None:
        written = contact.data().decode(errors="replace")
        jid = Jid(written.lstrip("+").partition("@")[0], "s.whatsapp.net")
    else:
        written, jid = "", user.jid("jid").account
    number = number_of(jid)
    phone = network.phones.find(number) if number else None
    attributes: dict[str, Attribute | int | None] = {"jid": jid}
    content: list[Node] = []
    if contact is not None:
        if phone is not None and asked["contact"].text("addressing_mode") == LID_SERVER:
            attributes = {"jid": phone.lid, "pn_jid": phone.jid}
        content.append(Node("contact", {"type": "in" if phone else "out"}, written.encode()))
    if phone is not None:
        content += _details(network, asked, phone)
    return Node("user", attributes, content)


def _details(network: Network, asked: dict[str, Node], phone: Phone) -> list[Node]:
    details = []
    if "lid" in asked:
        details.append(Node("lid", {"val": phone.lid}))
    if "devices" in asked:
        companions = network.store.accounts.companions(phone.number)
        devices = [Node("device", {"id": 0})]
        devices += [Node("device", {"id": one.device, "key-index": one.device}) for one in companions]
        listed = stanzas.participants_hash([phone.lid, *(one.lid for one in companions)])
        details.append(Node("devices", {}, [Node("device-list", {"hash": listed}, devices)]))
    return details


def _unlink_self(network: Network, companion: Companion, stanza: Node) -> Content:
    if stanza.need("remove-companion-device").jid("jid") != companion.jid:
        raise MalformedStanza("a companion may only unlink itself")
    network.store.accounts.forget_companion(companion)
    network.statistics.count("logouts")
    return None


# The rest of what a client asks for while it starts


def _media_hosts(network: Network, companion: Companion, stanza: Node) -> Content:
    del companion, stanza
    attributes: dict[str, Attribute | int | None] = {
        "auth": network.media_token,
        "ttl": _MEDIA_SECONDS,
        "auth_ttl": _MEDIA_SECONDS,
        "max_buckets": 12,
    }
    return [Node("media_conn", attributes, [Node("host", {"hostname": _MEDIA_HOST})])]


def _privacy(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion
    if stanza.text("type") == "set":
        return [stanza.need("privacy")]
    return [
        Node(
            "privacy",
            {},
            [Node("category", {"name": name, "value": "all"}) for name in _PRIVACY_CATEGORIES],
        )
    ]


def _privacy_tokens(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion
    for token in stanza.need("tokens").children:
        token.jid("jid")
    return [Node("tokens", {})]


def _properties(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion, stanza
    return [Node("props", {"protocol": 1, "ab_key": "sim", "hash": "sim", "refresh": 86400, "refresh_id": 1})]


def _blocklist(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion, stanza
    return [Node("list", {"dhash": "0"})]


def _app_state(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion
    collections = [
        Node("collection", {"name": one.text("name"), "version": one.text("version") or 0})
        for one in stanza.need("sync").children
    ]
    return [Node("sync", {}, collections)]


def _no_picture(network: Network, companion: Companion, stanza: Node) -> Content:
    del network, companion, stanza
    raise _NotFound


_ANSWERS: dict[tuple[str, str], _Query] = {
    ("encrypt", "count"): _count_pre_keys,
    ("encrypt", "registration"): _upload_pre_keys,
    ("encrypt", "identity"): _upload_pre_keys,
    ("encrypt", "digest"): _digest_keys,
    ("encrypt", "key"): _hand_out_keys,
    ("usync", "usync"): _look_up,
    ("md", "remove-companion-device"): _unlink_self,
    ("w:m", "media_conn"): _media_hosts,
    ("w:p", ""): _nothing,
    ("urn:xmpp:ping", ""): _nothing,
    ("passive", ""): _nothing,
    ("privacy", "privacy"): _privacy,
    ("privacy", "tokens"): _privacy_tokens,
    ("abt", "props"): _properties,
    ("blocklist", ""): _blocklist,
    ("w:sync:app:state", "sync"): _app_state,
    ("w:profile:picture", ""): _no_picture,
}
