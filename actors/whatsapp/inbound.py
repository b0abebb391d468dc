"""Messages received: recorded once, with the sender's phone number; a word that opts out is obeyed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.care import opts_out
from actors.whatsapp import session
from actors.whatsapp.addresses import LID_SERVER, PHONE_SERVER, Address, parse_address
from config.logging import logger
from storage import care, events

if TYPE_CHECKING:
    from actors.whatsapp.events import MessageReceived
    from actors.whatsapp.services import Services
    from storage.care import OptedOut
    from storage.database import Connection

#: Chats with one account. Only what is said there is said to us.
_PRIVATE_SERVERS = frozenset({PHONE_SERVER, LID_SERVER})


async def record_message(services: Services, device_id: int, device: str, event: MessageReceived) -> None:
    """Record a message that another account sent, and obey it if it opts out; repeated, it changes nothing."""
    sender_number = await number_behind(services, event.sender, event.sender_alternative)
    private = _server_of(event.chat) in _PRIVATE_SERVERS
    body = {
        "message_id": event.message_id,
        "chat": event.chat,
        # In a private chat, the other side of it is the sender: messages of our own are not recorded.
        "chat_number": sender_number if private else None,
        "sender": event.sender,
        "sender_alternative": event.sender_alternative,
        "sender_number": sender_number,
        "kind": event.kind,
        "text": event.text,
        "time": event.timestamp,
    }
    received = events.Event("message", event.message_id, body)
    if not private or not opts_out(event.text, services.settings.opt_out_words):
        await services.store(events.record, device_id, [received])
        return
    if sender_number is None:
        logger().error("Somebody opts out whose number is not known", device=device, sender=event.sender)
        await services.store(events.record, device_id, [received])
        return
    changed = await services.store(_record_opt_out, device_id, received, sender_number)
    if changed is not None:
        logger().info("Opted out", device=device, number=sender_number, word=event.text, cancelled=changed.cancelled)


def _record_opt_out(connection: Connection, device_id: int, received: events.Event, number: str) -> OptedOut | None:
    """Record the message and the opt-out together; None: the message is known, so it was obeyed when it came."""
    if not events.record(connection, device_id, [received]):
        return None
    word = received.body["text"].strip()
    changed = care.opt_out(connection, [number], source="keyword", device_id=device_id, word=word)
    told = {"number": number, "word": word, "cancelled": changed.cancelled}
    events.record(connection, device_id, [events.Event("opt_out", received.external_id, told)])
    return changed


async def number_behind(services: Services, jid: str, alternative: str = "") -> str | None:
    """Return the phone number of an account: from its own address, the other one it gave, or what the store knows."""
    for text in (jid, alternative):
        address = _address(text)
        if address is not None and address.server == PHONE_SERVER:
            return address.user
    for text in (jid, alternative):
        if _server_of(text) == LID_SERVER:
            number = await services.look(session.phone_of_lid, text)
            if number is not None:
                return number
    return None


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _server_of(text: str) -> str:
    address = _address(text)
    return address.server if address is not None else ""
