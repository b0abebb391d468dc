"""A WhatsApp client as a device uses it: send, look whether it lives, pair, log out, close.

:class:`~actors.whatsapp.library.ClientLibrary` opens clients; neonize itself is reached through
:mod:`actors.whatsapp.binding`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from actors.whatsapp.addresses import GROUP_SERVER, LID_SERVER, PHONE_SERVER, Address, parse_address
from actors.whatsapp.content import build_message
from actors.whatsapp.events import ClientError, Content, NotSent, SendRefused, SendUnknown, Sent
from actors.whatsapp.outcomes import send_error
from config.logging import logger

if TYPE_CHECKING:
    from actors.whatsapp.binding import Binding
    from actors.whatsapp.connection import Connection

#: The length of a message secret, in bytes (the protocol's).
SECRET_BYTES = 32
#: How long a logout waits for the server.
_LOGOUT_SECONDS = 10.0
#: The servers a message can go to.
_RECIPIENT_SERVERS = frozenset({PHONE_SERVER, LID_SERVER, GROUP_SERVER})


class WhatsAppClient:
    """One companion's client. Its methods are for the event loop it was opened on."""

    def __init__(self, binding: Binding, connection: Connection) -> None:
        self._binding = binding
        self._connection = connection
        self._neonize = connection.neonize
        self._sending: asyncio.Task[Sent] | None = None
        self._probing: asyncio.Task[None] | None = None

    @property
    def jid(self) -> str | None:
        """The companion's JID, as ``60123456789:1@s.whatsapp.net``; None until a pairing succeeded."""
        return self._connection.jid

    @property
    def connected(self) -> bool:
        """Whether the session is logged in, as far as events tell. A dead socket shows only by keep-alives."""
        return self._connection.connected

    @property
    def contacts(self) -> int:
        """With how many contacts the session had Signal sessions when it was opened."""
        return self._connection.contacts

    @property
    def busy(self) -> bool:
        """Whether a send is still under way in the library, perhaps one whose caller has stopped waiting."""
        return self._sending is not None and not self._sending.done()

    async def send(self, to: str, content: Content, secret: bytes) -> Sent:
        """Send one message and wait for WhatsApp's acknowledgement.

        The library waits up to 75 s for it, and for ever after it has repeated a message on a new connection: bring
        your own deadline. Cancelling stops the waiting, not the send; until it ends, further sends are refused as
        ``busy``, since the library would queue them behind it. Closing the client ends it within about 5 s.

        Args:
            to: a phone number in digits (E.164, with or without ``+``), or the JID of an account or group.
            content: the text, or the media and its caption.
            secret: 32 random bytes, used once: the library stores them, with the message's ID, before it sends.

        Raises:
            NotSent: the message has certainly not left this machine.
            SendRefused: it was not delivered and will not be.
            SendUnknown: nobody can tell.
        """
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a message secret has {SECRET_BYTES} bytes")
        recipient = _recipient(to)
        if not self._connection.usable:
            raise NotSent("closed", "The client is closed.")
        if self.busy:
            raise NotSent("busy", "An earlier send of this device is still under way.")
        if not self.connected:
            raise NotSent("not_connected", "The device is not connected.")
        self._sending = asyncio.create_task(self._send(recipient, content, secret))
        self._sending.add_done_callback(_forget)
        return await asyncio.shield(self._sending)

    async def _send(self, recipient: Address, content: Content, secret: bytes) -> Sent:
        message = await build_message(self._binding, self._neonize, content, secret)
        try:
            response = await self._neonize.send_message(self._binding.jid(recipient), message)
        except self._binding.aioze.SendMessageError as error:
            raise send_error(str(error)) from error
        except Exception as error:
            raise SendUnknown("unclear", f"The library failed while sending: {error}.") from error
        await self._require_encrypted(str(response.ID))
        return Sent(message_id=str(response.ID), timestamp=int(response.Timestamp))

    async def _require_encrypted(self, message_id: str) -> None:
        """Raise NotSent if the message went out without a single copy for its recipient.

        That happens when the recipient's keys cannot be fetched: the library logs it, sends the rest (the copies for
        the sender's own devices, or nothing), and WhatsApp acknowledges it.
        """
        left_out = {parse_address(text) for text in self._connection.left_out.pop(message_id, ())}
        own = {parse_address(text).user for text in (self.jid, self._connection.own_lid) if text}
        recipients = {Address(device.user, device.server) for device in left_out if device.user not in own}
        for recipient in recipients:
            missed = {device.device for device in left_out if device.user == recipient.user}
            try:
                devices = await self._neonize.get_user_devices(self._binding.jid(recipient))
            except self._binding.aioze.GetUserDevicesError:
                devices = []
            if missed >= {int(device.Device) for device in devices}:
                raise NotSent("not_encrypted", "The message could not be encrypted for its recipient.")
            logger(jid=self.jid).warning("Some of a recipient's devices were left out", message_id=message_id)

    async def probe(self, seconds: float) -> bool:
        """Return whether WhatsApp answers on this connection within ``seconds``.

        It repeats what the library says after each login anyway (this device is active), so nothing changes.
        """
        if not self.connected:
            return False
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._neonize.set_passive(False))
            self._probing.add_done_callback(_forget)
        done, _ = await asyncio.wait({self._probing}, timeout=seconds)
        return bool(done) and not self._probing.cancelled() and self._probing.exception() is None

    async def pair_code(self, number: str) -> str:
        """Return a code that links this client when it is typed in on the phone of ``number``.

        Call it on a client opened for pairing, whose first QR text has come.

        Raises:
            ClientError: WhatsApp refuses, for instance since too many codes were asked for.
        """
        self._require_usable()
        try:
            return await self._binding.pair_phone(self._neonize, number.removeprefix("+"))
        except self._binding.aioze.PairPhoneError as error:
            code = "pairing_rate_limited" if "429" in str(error) else "pairing_refused"
            raise ClientError(code, f"WhatsApp gives no pairing code for {number}: {error}.") from error

    async def is_on_whatsapp(self, number: str) -> bool:
        """Return whether a phone number (digits, with or without ``+``) has a WhatsApp account.

        Raises:
            ClientError: WhatsApp did not answer the question.
        """
        self._require_usable()
        try:
            answers = await self._neonize.is_on_whatsapp(f"+{number.removeprefix('+')}")
        except self._binding.aioze.IsOnWhatsAppError as error:
            raise ClientError("no_answer", f"WhatsApp did not say whether {number} is registered: {error}.") from error
        return any(answer.IsIn for answer in answers)

    async def logout(self) -> None:
        """Unlink this device at WhatsApp, which deletes its stored session. Best effort: it never raises.

        Close the client afterwards. When WhatsApp could not be told, the stored session stays.
        """
        if not self.connected:
            return
        task = asyncio.create_task(self._neonize.logout())
        task.add_done_callback(_forget)
        done, _ = await asyncio.wait({task}, timeout=_LOGOUT_SECONDS)
        if not done or task.exception() is not None:
            reason = str(task.exception()) if done else "no answer"
            logger(jid=self.jid).warning("WhatsApp could not be told about a logout", reason=reason)

    async def close(self) -> None:
        """Disconnect and release everything; afterwards no event is delivered any more.

        It may be called at any time and repeatedly; it waits until the library has let go (see
        :meth:`actors.whatsapp.connection.Connection.close`).
        """
        await self._connection.close()

    def _require_usable(self) -> None:
        if not self._connection.usable:
            raise ClientError("closed", "The client is closed.")


def _recipient(to: str) -> Address:
    try:
        recipient = parse_address(to)
    except ValueError as error:
        raise SendRefused("recipient_invalid", f"{error}.") from error
    if recipient.device or recipient.server not in _RECIPIENT_SERVERS:
        raise SendRefused("recipient_invalid", f"{to} is neither an account nor a group.")
    return recipient


def _forget(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended, so that asyncio does not complain when nobody waits for it any more."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
