"""Messages, receipts and acknowledgements of companions: who gets what, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.whatsapp import stanzas
from simulator.whatsapp.nodes import Jid, MalformedStanza, Node
from simulator.whatsapp.records import Companion, Mail, Phone, number_of

if TYPE_CHECKING:
    from simulator.whatsapp.network import Network

#: Errors with which messages are refused: the recipient is not on WhatsApp; the account may not write to it.
_NOT_FOUND = 404
_NOT_ALLOWED = 463


def queue_key(tag: str, identifier: str, kind: str, peer: Jid) -> str:
    """Return what identifies a queued stanza in the acknowledgement a client sends for it."""
    return f"{tag} {identifier} {kind} {peer}"


def message(network: Network, sender: Companion, stanza: Node) -> list[Node]:
    """Take a message of ``sender``; return what it is answered.

    Raises:
        MalformedStanza: it is no message a client may send.
    """
    identifier, destination = stanza.text("id"), stanza.jid("to")
    if not identifier:
        raise MalformedStanza("a message has no id")
    faults, statistics = network.faults, network.statistics
    if faults.active("drop-message", sender.key):
        statistics.count("dropped")
        return []
    if faults.active("ack-error", sender.key):
        statistics.count("refused_messages")
        return [stanzas.ack_message(stanza, code=_NOT_ALLOWED)]
    number = number_of(destination)
    recipient = network.phones.find(number) if number else None
    if recipient is None:
        statistics.count("refused_messages")
        return [stanzas.ack_message(stanza, code=_NOT_FOUND)]
    answers = (
        _one_ciphertext(network, sender, recipient, stanza)
        if stanza.child("enc")
        else _fan_out(network, sender, recipient, stanza)
    )
    if faults.active("lost-ack", sender.key):
        statistics.count("withheld_acks")
        return []
    return answers


def _fan_out(network: Network, sender: Companion, recipient: Phone, stanza: Node) -> list[Node]:
    """Deliver a message that carries one ciphertext for each device of recipient and sender."""
    if not network.store.messages.accept(sender.key, stanza.text("id")):
        # A client that lost its connection before the acknowledgement sends the same stanza again.
        network.statistics.count("duplicates")
        return [stanzas.ack_message(stanza)]
    network.statistics.count("messages")
    accounts = (recipient.number, sender.number)
    participants = [(part.jid("jid"), part.need("enc")) for part in stanza.need("participants").children]
    if not participants:
        raise MalformedStanza("a message has no participants")
    for address, content in participants:
        if number_of(address) not in accounts:
            raise MalformedStanza(f"{address} takes no part in this chat")
        _deliver(network, sender, address, content, stanza)
    known = {
        companion.lid
        for number in accounts
        for companion in network.store.accounts.companions(number)
        if companion.key != sender.key
    } | {recipient.lid, Jid(sender.lid.user, sender.lid.server)}
    if {address for address, _ in participants} != known:
        return [stanzas.ack_message(stanza, participants_hash=stanzas.participants_hash({*known, sender.lid}))]
    return [stanzas.ack_message(stanza)]


def _one_ciphertext(network: Network, sender: Companion, recipient: Phone, stanza: Node) -> list[Node]:
    """Deliver a message for one device only: another try, or housekeeping with the own phone."""
    content = stanza.need("enc")
    retry = int(content.text("count") or 0)
    settled = network.store.messages.settle_undecryptable(recipient.number, sender.key, stanza.text("id"))
    if retry and not settled:
        network.statistics.count("duplicates")
    elif retry or network.store.messages.accept(sender.key, stanza.text("id")):
        network.statistics.count("retries" if retry else "peer_messages")
        _deliver(network, sender, stanza.jid("to"), content, stanza, retry)
    return [stanzas.ack_message(stanza)]


def _deliver(network: Network, sender: Companion, address: Jid, content: Node, stanza: Node, retry: int = 0) -> None:
    """Bring one ciphertext to the device at ``address``."""
    number = number_of(address) or ""
    identity = stanza.child("device-identity")
    if address.device == 0:
        destination = stanza.attributes.get("recipient") or stanza.jid("to")
        network.phones.receive(
            Mail(
                number=number,
                sender=sender.key,
                message_id=stanza.text("id"),
                destination=str(destination),
                kind=content.text("type"),
                ciphertext=content.data(),
                device_identity=identity.data() if identity else b"",
                retry=retry,
            )
        )
        return
    companion = network.store.accounts.companion(number, address.device)
    if companion is None:
        return  # unlinked since the sender asked; the hash in the acknowledgement tells it
    own = number == sender.number
    forwarded = Node(
        "message",
        {
            "from": sender.lid,
            "id": stanza.text("id"),
            "t": stanzas.now(),
            "type": stanza.text("type") or "text",
            "notify": sender.number,
            "recipient": stanza.jid("to") if own else None,
            "sender_pn": None if own else sender.jid,
        },
        [content, *([identity] if identity else [])],
    )
    network.deliver(companion, forwarded)


def receipt(network: Network, sender: Companion, stanza: Node) -> list[Node]:
    """Take a receipt of ``sender`` for messages it received; return what it is answered."""
    kind, peer = stanza.text("type"), stanza.jid("to")
    first = stanza.text("id")
    more = [item.text("id") for item in (stanza.child("list") or stanza).children if item.tag == "item"]
    for identifier in (first, *more):
        network.store.messages.dequeue(sender.key, queue_key("message", identifier, "", peer))
    network.statistics.count("receipts_from_companions")
    retry = stanza.child("retry")
    number = number_of(peer)
    if kind == "retry" and retry is not None and not peer.device:
        network.phones.say_again(first, sender, int(retry.text("count") or 1))
    elif peer.device and number and number != sender.number:
        author = network.store.accounts.companion(number, peer.device)
        if author is not None:
            forwarded = Node(
                "receipt",
                {**stanza.attributes, "to": None, "from": sender.lid, "t": stanzas.now()},
                stanza.content,
            )
            network.deliver(author, forwarded)
    return [stanzas.ack_receipt(stanza)]


def acknowledgement(network: Network, sender: Companion, stanza: Node) -> list[Node]:
    """Forget a stanza the client says it has."""
    tag, peer = stanza.text("class"), stanza.attributes.get("to")
    if isinstance(peer, Jid):
        kind = "" if tag == "message" else stanza.text("type")
        if network.store.messages.dequeue(sender.key, queue_key(tag, stanza.text("id"), kind, peer)):
            network.statistics.count(f"acknowledged_{tag}s")
    return []
