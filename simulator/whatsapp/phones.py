"""The simulated phones: primary devices that decrypt what they are sent, answer, and speak."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from config.errors import NotFound, Refused
from simulator.whatsapp import stanzas
from simulator.whatsapp.adv import WrongDeviceIdentity, verify_device_identity
from simulator.whatsapp.content import ReadMessage, first_history, pad, read_message, text_message
from simulator.whatsapp.curve import KEY_TYPE, KeyPair
from simulator.whatsapp.media import MediaRefused, MediaStore, open_media
from simulator.whatsapp.nodes import Jid, Node
from simulator.whatsapp.ratchet import (
    Bundle,
    UndecryptableMessage,
    begin_session,
    encrypt,
    read_pre_key_message,
)
from simulator.whatsapp.records import (
    UNKNOWN_NUMBER_ENDING,
    Companion,
    InboxEntry,
    Mail,
    Phone,
    Said,
    is_number,
)
from simulator.whatsapp.sessions import SessionRecord
from simulator.whatsapp.statistics import Statistics
from simulator.whatsapp.store import Store

#: Every phone has one signed pre-key, with this id.
_SIGNED_PRE_KEY_ID = 1
#: How often a phone asks for a message again that it cannot decrypt.
_RETRIES = 4

#: Hands a stanza to a companion, now or when it next logs in.
Deliver = Callable[[Companion, Node], None]


class Phones:
    """All phones of one simulator. Every method runs inside a transaction of the store."""

    def __init__(self, store: Store, media: MediaStore, statistics: Statistics, deliver: Deliver) -> None:
        self._store = store
        self._accounts = store.accounts
        self._media = media
        self._statistics = statistics
        self._deliver = deliver

    def add(self, number: str) -> Phone:
        """Return the phone with ``number``, registering it if it is new.

        Raises:
            Refused: it is no phone number.
        """
        if not is_number(number):
            raise Refused(
                f"{number!r} is no phone number.",
                "Write 7 to 15 digits with the country code, as 60123456789.",
            )
        phone = self._accounts.phone(number)
        if phone is None:
            identity, signed_pre_key = KeyPair(), KeyPair()
            signature = identity.sign(KEY_TYPE + signed_pre_key.public)
            registration = secrets.randbelow(16380) + 1
            phone = Phone(number, identity, signed_pre_key, signature, registration)
            self._accounts.add_phone(phone)
        return phone

    def find(self, number: str) -> Phone | None:
        """Return the phone with ``number``, or None when it is not on WhatsApp.

        A number nobody added comes into being here, unless it ends in 000.
        """
        phone = self._accounts.phone(number)
        if phone is None and is_number(number) and not number.endswith(UNKNOWN_NUMBER_ENDING):
            phone = self.add(number)
        return phone

    def bundle(self, phone: Phone) -> Bundle:
        """Return keys with which someone can begin a session with ``phone``."""
        pre_key = KeyPair()
        identifier = self._accounts.add_phone_pre_key(phone.number, pre_key.private)
        return Bundle(
            registration=phone.registration,
            identity=phone.identity.public,
            signed_pre_key_id=_SIGNED_PRE_KEY_ID,
            signed_pre_key=phone.signed_pre_key.public,
            signature=phone.signature,
            pre_key_id=identifier,
            pre_key=pre_key.public,
        )

    def companion_bundle(self, companion: Companion) -> Bundle:
        """Return keys with which someone can begin a session with ``companion``, using up one of its keys."""
        return bundle_of(companion, self._accounts.take_companion_pre_key(*companion.key))

    # Receiving

    def power(self, number: str, on: bool) -> None:
        """Switch a phone on or off; when it comes on it receives what waited for it.

        Raises:
            NotFound: there is no such phone.
        """
        if self._accounts.phone(number) is None:
            raise NotFound(f"There is no phone {number}.", f"Add it with: phone add {number}")
        self._accounts.power_phone(number, on)
        if on:
            for mail in self._store.messages.collect_mail(number):
                self.receive(mail)

    def receive(self, mail: Mail) -> None:
        """Decrypt a message, show it and answer with a receipt; a phone that is off does so later."""
        phone = self._accounts.phone(mail.number)
        if phone is None or not phone.powered:
            self._store.messages.post(mail)
            return
        try:
            message = self._read(phone, mail)
        except (UndecryptableMessage, WrongDeviceIdentity) as error:
            self._statistics.count("undecryptable")
            self._statistics.count(f"undecryptable: {error}")
            self._ask_again(phone, mail)
            return
        self._statistics.count("decrypted")
        own = mail.sender[0] == phone.number
        if own and not message.destination:
            return  # the companion's housekeeping with its own phone
        self._store.messages.show(self._entry(phone, mail, message, own=own))
        kind, recipient = ("sender", Jid.parse(mail.destination)) if own else ("", None)
        self._answer(mail.sender, stanzas.receipt(phone.lid, mail.message_id, kind, recipient=recipient))

    def read(self, number: str, message_id: str | None) -> int:
        """Read what a phone received from companions, or one message; return how many read receipts left."""
        phone = self._accounts.phone(number)
        if phone is None or not phone.powered:
            raise Refused(f"There is no phone {number}, or it is off.", "Add it, or switch it on.")
        unread = self._store.messages.unread(number, message_id)
        for sender, identifier in unread:
            self._answer(sender, stanzas.receipt(phone.lid, identifier, "read"))
        return len(unread)

    def _read(self, phone: Phone, mail: Mail) -> ReadMessage:
        """Decrypt ``mail`` with the one session it belongs to, and keep the advanced session."""
        number, device = mail.sender
        address = f"{number}:{device}"
        record = SessionRecord.load(self._accounts.session(phone.number, address))
        if mail.kind == "pkmsg":
            padded = self._begin(phone, mail, record)
        elif mail.kind == "msg":
            padded = record.decrypt(mail.ciphertext)
        else:
            raise UndecryptableMessage(f"messages of type {mail.kind!r} are not for phones")
        self._accounts.save_session(phone.number, address, record.dump())
        message = read_message(padded)
        if message.destination and message.destination != mail.destination:
            raise UndecryptableMessage("the copy for the own phone names another recipient than the stanza")
        if bool(message.destination) != (number == phone.number) and message.kind != "protocolMessage":
            raise UndecryptableMessage("only the account's own phone gets copies of what was sent")
        return message

    def _begin(self, phone: Phone, mail: Mail, record: SessionRecord) -> bytes:
        """Decrypt a message that begins a session, or repeats its beginning."""
        message = read_pre_key_message(mail.ciphertext)
        account = self._accounts.phone(mail.sender[0])
        companion = self._accounts.companion(*mail.sender)
        if account is None:
            raise UndecryptableMessage("the sender's account is unknown")
        verify_device_identity(mail.device_identity, account.identity.public, message.identity)
        if companion and (companion.identity, companion.registration) != (
            message.identity,
            message.registration,
        ):
            raise UndecryptableMessage("the message was made with another identity than the companion's")
        if record.knows(message):
            return record.decrypt(message.message)
        pre_key = None
        if message.pre_key_id is not None:
            pre_key = self._accounts.phone_pre_key(phone.number, message.pre_key_id)
            if pre_key is None:
                raise UndecryptableMessage("its one-time key was used before")
        if message.signed_pre_key_id != _SIGNED_PRE_KEY_ID:
            raise UndecryptableMessage("its signed pre-key is unknown")
        padded = record.answer(phone.identity, phone.signed_pre_key, pre_key, message)
        if message.pre_key_id is not None:
            self._accounts.use_phone_pre_key(phone.number, message.pre_key_id)
        return padded

    def _entry(self, phone: Phone, mail: Mail, message: ReadMessage, *, own: bool) -> InboxEntry:
        sha256 = media_error = ""
        if message.media is not None and not own:
            try:
                sha256 = hashlib.sha256(open_media(self._media, message.media)).hexdigest()
            except MediaRefused as error:
                self._statistics.count("media_refused")
                media_error = str(error)
        return InboxEntry(
            number=phone.number,
            message_id=mail.message_id,
            sender=mail.sender,
            destination=mail.destination,
            kind=message.kind,
            text=message.text,
            secret=message.secret,
            time=time.time(),
            sent=own,
            media_sha256=sha256,
            mimetype=message.media.mimetype if message.media else "",
            file_name=message.media.file_name if message.media else "",
            media_error=media_error,
        )

    def _ask_again(self, phone: Phone, mail: Mail) -> None:
        """Ask the sender to encrypt a message afresh, with keys for a new session."""
        if mail.retry >= _RETRIES:
            return
        self._store.messages.mark_undecryptable(mail)
        retry = Node("retry", {"count": mail.retry + 1, "id": mail.message_id, "t": stanzas.now(), "v": 1})
        content = [
            retry,
            stanzas.registration(phone.registration),
            Node("keys", {}, stanzas.keys(self.bundle(phone))),
        ]
        recipient = Jid.parse(mail.destination) if mail.sender[0] == phone.number else None
        receipt = stanzas.receipt(phone.lid, mail.message_id, "retry", recipient=recipient, content=content)
        self._answer(mail.sender, receipt)

    def _answer(self, sender: tuple[str, int], receipt: Node) -> None:
        companion = self._accounts.companion(*sender)
        if companion is not None:
            self._statistics.count("receipts")
            self._deliver(companion, receipt)

    # Speaking

    def say(self, sender: str, recipient: str, devices: list[Companion], text: str) -> str:
        """Let a phone send a text to an account's phone and ``devices``; return the message id.

        Raises:
            Refused: the sender is off or not on WhatsApp.
        """
        phone = self.find(sender)
        if phone is None or not phone.powered:
            raise Refused(f"The phone {sender} is off or not on WhatsApp.", "Add it, or switch it on.")
        said = Said(stanzas.new_id() + stanzas.new_id(), sender, text)
        self._store.messages.add_said(said)
        for companion in devices:
            self._deliver(companion, self._spoken(phone, said, companion))
        peer = self._accounts.phone(recipient)
        if peer is not None and peer.number != sender:
            # Between two phones nothing is proved by encrypting: both are the simulator.
            self._store.messages.show(
                InboxEntry(recipient, said.message_id, (sender, 0), str(peer.lid), "text", text, "", time.time())
            )
        self._statistics.count("said")
        return said.message_id

    def say_again(self, message_id: str, companion: Companion, retry: int) -> None:
        """Encrypt a text afresh for a companion that could not decrypt it."""
        said = self._store.messages.said(message_id)
        phone = self._accounts.phone(said.sender) if said else None
        if said and phone and retry <= _RETRIES:
            self._accounts.save_session(phone.number, _address(companion), SessionRecord().dump())
            self._deliver(companion, self._spoken(phone, said, companion, retry))

    def share_history(self, companion: Companion) -> bool:
        """Send a new companion its first history; return whether the phone was on to do so."""
        phone = self._accounts.phone(companion.number)
        if phone is None or not phone.powered:
            return False
        history = first_history(str(phone.jid), phone.number)
        content = stanzas.encrypted(*self._encrypt(phone, companion, history))
        message = stanzas.message_from_phone(phone, stanzas.new_id(), content, name=phone.number, peer=True)
        self._deliver(companion, message)
        return True

    def _spoken(self, phone: Phone, said: Said, companion: Companion, retry: int = 0) -> Node:
        kind, ciphertext = self._encrypt(phone, companion, text_message(said.text))
        return stanzas.message_from_phone(
            phone, said.message_id, stanzas.encrypted(kind, ciphertext, retry), name=phone.number
        )

    def _encrypt(self, phone: Phone, companion: Companion, message: bytes) -> tuple[str, bytes]:
        address = _address(companion)
        record = SessionRecord.load(self._accounts.session(phone.number, address))
        if not record.sessions:
            bundle = self.companion_bundle(companion)
            record.begin(begin_session(phone.identity, phone.registration, bundle))
        encrypted = encrypt(record.sessions[0], pad(message))
        self._accounts.save_session(phone.number, address, record.dump())
        return encrypted


def _address(companion: Companion) -> str:
    return f"{companion.number}:{companion.device}"


def bundle_of(companion: Companion, pre_key: tuple[int, bytes] | None) -> Bundle:
    """Return the keys of ``companion``, with one of its one-time keys if there is one."""
    identifier, public = pre_key or (None, None)
    return Bundle(
        registration=companion.registration,
        identity=companion.identity,
        signed_pre_key_id=companion.signed_pre_key_id,
        signed_pre_key=companion.signed_pre_key,
        signature=companion.signature,
        pre_key_id=identifier,
        pre_key=public,
    )
