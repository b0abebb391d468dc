"""Linking a companion to a phone: by the QR code it shows, or by the code typed into the phone."""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pyaileys.proto import WAProto_pb2 as schema

from config.errors import NotFound, Refused
from simulator.whatsapp import adv, link_code, stanzas
from simulator.whatsapp.curve import KeyPair
from simulator.whatsapp.nodes import SERVER, MalformedStanza, Node
from simulator.whatsapp.records import Companion, Phone, number_of
from simulator.whatsapp.waiting import ShownQr, Waiting, read_qr, read_registration

if TYPE_CHECKING:
    from simulator.whatsapp.connection import Connection
    from simulator.whatsapp.network import Network

_T = TypeVar("_T")

#: QR codes offered to a companion; it shows one after the other.
_REFS = 6
#: How long a companion may wait to be linked: the codes last one minute and five times twenty seconds.
WAITING_SECONDS = 180.0
#: How long the companion may take for each of its answers while it is being linked.
_ANSWER_SECONDS = 20.0
#: Highest device number: one byte of an address.
_LAST_DEVICE = 99


class Pairing:
    """The companions that wait, and what phones do to link them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._waiting: dict[Connection, Waiting] = {}

    def open(self, connection: Connection, noise: bytes, payload: Any) -> None:
        """Offer QR codes to a companion that is not linked yet.

        Raises:
            MalformedStanza: its registration does not verify.
        """
        waiting = read_registration(payload, noise, connection)
        waiting.refs = [f"2@{base64.b64encode(secrets.token_bytes(24)).decode()}" for _ in range(_REFS)]
        self._waiting[connection] = waiting
        self._network.statistics.count("registrations")
        connection.send(
            Node(
                "iq",
                {"from": SERVER, "id": stanzas.new_id(), "type": "set", "xmlns": "md"},
                [Node("pair-device", {}, [Node("ref", {}, ref.encode()) for ref in waiting.refs])],
            )
        )

    def close(self, connection: Connection) -> None:
        """Forget a companion that waited."""
        waiting = self._waiting.pop(connection, None)
        if waiting is not None:
            for future in (waiting.finished, waiting.linked):
                if future is not None and not future.done():
                    future.set_exception(Refused("The device went away while it was being linked.", "Pair it again."))

    def waiting(self) -> list[dict[str, Any]]:
        """Return who waits: QR references, and the number a code was asked for."""
        return [{"refs": waiting.refs, "code_for": waiting.code_number or None} for waiting in self._waiting.values()]

    # What phones do

    async def scan(self, number: str, text: str, spoil: str | None = None) -> str:
        """Scan a QR code with the phone ``number``; return the companion's address.

        Args:
            number: the phone.
            text: the QR text; the server does not know it, for it holds a secret of the companion's.
            spoil: make the phone's statement wrong (``hmac`` or ``signature``), for tests.

        Raises:
            Refused: nobody waits with this code, or the companion did not agree.
        """
        phone = self._phone(number)
        qr = read_qr(text)
        waiting = self._find(qr)
        if (qr.noise, qr.identity) != (waiting.noise, waiting.identity):
            raise Refused("The QR code shows other keys than the device registered with.", "Pair it again.")
        return await self._link(phone, waiting, qr.secret, spoil)

    async def enter_code(self, number: str, text: str) -> str:
        """Type a pairing code into the phone ``number``; return the companion's address.

        Raises:
            Refused: no device asked for a code for this number, or the code is wrong.
        """
        phone = self._phone(number)
        waiting = next((one for one in self._waiting.values() if one.code_number == number), None)
        if waiting is None:
            raise Refused(f"No device asked for a pairing code for {number}.", "Pair one with a code first.")
        try:
            code = link_code.normalize_code(text)
            exchange = await asyncio.to_thread(link_code.begin_exchange, code, waiting.code_wrapped)
            waiting.finished = asyncio.get_running_loop().create_future()
            self._send_phone_hello(waiting, phone, exchange)
            identity, bundle = await _within(waiting.finished)
            if identity != waiting.identity:
                raise link_code.WrongCode("the companion finished with another identity")
            secret = link_code.finish_exchange(exchange, phone.identity, identity, bundle)
        except link_code.WrongCode as error:
            raise Refused(f"Wrong code: {error}.", "Type the code that the device shows.") from None
        return await self._link(phone, waiting, secret, None)

    # What companions send

    def handle(self, connection: Connection, stanza: Node) -> list[Node]:
        """Take a stanza of a companion that is not linked; return what it is answered."""
        waiting = self._waiting.get(connection)
        if waiting is None or stanza.tag != "iq":
            return []
        kind = stanza.text("type")
        if kind == "error":
            self._refuse(waiting, stanza)
            return []
        if kind == "result":
            return self._agree(waiting, stanza) if stanza.child("pair-device-sign") else []
        request = stanza.child("link_code_companion_reg")
        if request is None:
            return [stanzas.result(stanza)]
        if request.text("stage") == "companion_hello":
            return [stanzas.result(stanza, [self._companion_hello(waiting, request)])]
        if request.text("stage") == "companion_finish" and waiting.finished is not None:
            if request.need("link_code_pairing_ref").data() != waiting.code_ref.encode():
                return [stanzas.error(stanza, 400, "bad-request")]
            if not waiting.finished.done():
                bundle = request.need("link_code_pairing_wrapped_key_bundle").data()
                waiting.finished.set_result((request.need("companion_identity_public").data(32), bundle))
            return [stanzas.result(stanza)]
        return [stanzas.error(stanza, 400, "bad-request")]

    def _companion_hello(self, waiting: Waiting, request: Node) -> Node:
        wrapped = request.need("link_code_pairing_wrapped_companion_ephemeral_pub")
        if request.need("companion_server_auth_key_pub").data(32) != waiting.noise:
            raise MalformedStanza("a pairing code is asked for with another Noise key")
        waiting.code_number = number_of(request.jid("jid")) or ""
        waiting.code_wrapped = wrapped.data(link_code.WRAPPED_LENGTH)
        waiting.code_ref = f"3@{secrets.token_hex(16)}"
        return Node(
            "link_code_companion_reg",
            {"stage": "companion_hello"},
            [Node("link_code_pairing_ref", {}, waiting.code_ref.encode())],
        )

    def _send_phone_hello(self, waiting: Waiting, phone: Phone, exchange: link_code.Exchange) -> None:
        content = [
            Node("link_code_pairing_wrapped_primary_ephemeral_pub", {}, exchange.wrapped),
            Node("primary_identity_pub", {}, phone.identity.public),
            Node("link_code_pairing_ref", {}, waiting.code_ref.encode()),
        ]
        waiting.connection.send(
            Node(
                "notification",
                {
                    "from": SERVER,
                    "id": stanzas.new_id(),
                    "type": "link_code_companion_reg",
                    "t": stanzas.now(),
                },
                [Node("link_code_companion_reg", {"stage": "primary_hello"}, content)],
            )
        )

    async def _link(self, phone: Phone, waiting: Waiting, secret: bytes, spoil: str | None) -> str:
        """Let the phone sign for the companion and wait until the companion has signed back."""
        if waiting.linked is not None and not waiting.linked.done():
            raise Refused("The device is being linked already.", "Wait for it.")
        device = self._next_device(phone.number)
        signer = phone.identity if spoil != "signature" else KeyPair()
        identity = adv.sign_for_companion(signer, waiting.identity, device)
        if spoil == "signature":
            wrong = schema.ADVSignedDeviceIdentity.FromString(identity)
            wrong.accountSignatureKey = phone.identity.public
            identity = wrong.SerializeToString()
        sealed = adv.seal(identity, secret if spoil != "hmac" else bytes(32))
        waiting.issued = identity
        waiting.becomes = Companion(
            number=phone.number,
            device=device,
            noise=waiting.noise,
            identity=waiting.identity,
            registration=waiting.registration,
            signed_pre_key_id=waiting.signed_pre_key_id,
            signed_pre_key=waiting.signed_pre_key,
            signature=waiting.signature,
        )
        waiting.linked = asyncio.get_running_loop().create_future()
        content = [
            Node("device-identity", {}, sealed),
            Node("device", {"jid": waiting.becomes.jid, "lid": waiting.becomes.lid}),
            Node("platform", {"name": "android"}),
        ]
        waiting.connection.send(
            Node(
                "iq",
                {
                    "from": SERVER,
                    "id": stanzas.new_id(),
                    "type": "set",
                    "xmlns": "md",
                    "t": stanzas.now(),
                },
                [Node("pair-success", {}, content)],
            )
        )
        return str((await _within(waiting.linked)).jid)

    def _agree(self, waiting: Waiting, stanza: Node) -> list[Node]:
        """Check the companion's own signature; only then is it linked."""
        if waiting.becomes is None or waiting.linked is None or waiting.linked.done():
            raise MalformedStanza("a companion signs without having been asked")
        answer = stanza.need("pair-device-sign", "device-identity")
        try:
            if int(answer.text("key-index") or -1) != waiting.becomes.device:
                raise adv.WrongDeviceIdentity("the companion names another key index")
            identity = adv.verify_answer(waiting.issued, answer.data(), waiting.identity)
        except adv.WrongDeviceIdentity as error:
            waiting.linked.set_exception(Refused(f"The device's signature is wrong: {error}."))
            raise MalformedStanza(str(error)) from None
        companion = replace(waiting.becomes, device_identity=identity)
        self._network.store.accounts.save_companion(companion)
        self._network.statistics.count("pairings")
        waiting.linked.set_result(companion)
        waiting.connection.finish()
        return [stanzas.stream_error(515)]

    def _refuse(self, waiting: Waiting, stanza: Node) -> None:
        if waiting.linked is not None and not waiting.linked.done():
            problem = stanza.child("error")
            text = problem.text("text") if problem else "no reason"
            waiting.linked.set_exception(
                Refused(f"The device refused to be linked: {text}.", "Pair it again.", code=text)
            )

    def _find(self, qr: ShownQr) -> Waiting:
        for waiting in self._waiting.values():
            if qr.ref in waiting.refs:
                return waiting
        raise Refused("No device waits with this QR code.", "Use the newest one: each lives about 20 s.")

    def _phone(self, number: str) -> Phone:
        phone = self._network.phones.find(number)
        if phone is None:
            raise NotFound(f"There is no phone {number}.", f"Add it with: phone add {number}")
        if not phone.powered:
            raise Refused(f"The phone {number} is off.", "Switch it on.")
        return phone

    def _next_device(self, number: str) -> int:
        accounts = self._network.store.accounts
        following = accounts.devices_ever(number) + 1
        if following <= _LAST_DEVICE:
            return following
        taken = {companion.device for companion in accounts.companions(number)}
        return next(device for device in range(1, _LAST_DEVICE + 1) if device not in taken)


async def _within(future: asyncio.Future[_T]) -> _T:
    """Wait for an answer of a companion.

    Raises:
        Refused: it did not come in time.
    """
    try:
        return await asyncio.wait_for(future, _ANSWER_SECONDS)
    except TimeoutError:
        raise Refused("The device did not answer in time.", "Pair it again.") from None
