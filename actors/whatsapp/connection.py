"""The life of one client on the WhatsApp library: it connects, tells its events, and is closed for good.

Everything here runs on the event loop; only the log hook is called from the library's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from actors.whatsapp.addresses import parse_address
from actors.whatsapp.binding import EVENTS, Binding
from actors.whatsapp.events import (
    ClientError,
    ClientEvent,
    Connected,
    ConnectRefused,
    Disconnected,
    LoggedOut,
    Paired,
    PairingEnded,
    PairingQr,
    SecretNotStored,
    StreamFailed,
    StreamReplaced,
    TemporarilyBanned,
)
from actors.whatsapp.events import ClientOutdated as Outdated
from actors.whatsapp.outcomes import connect_error
from actors.whatsapp.translation import (
    address_of,
    failure_node,
    logged_ending,
    logged_event,
    lost_event,
    not_encrypted,
    secret_not_stored,
    translate,
)
from config.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long the event of an ended session may stay away before the log line that told it is taken instead.
_ENDING_EVENT_SECONDS = 1.0
#: How long a stopped client's connect task may take to end.
_END_SECONDS = 5.0
#: How long it may take to learn that a client may be stopped (a dial under way ends after 30 s at the latest).
_SETTLE_SECONDS = 40.0
#: The same where it will not be learnt: the library waits for ever, in a thread that is lost.
_LOST_SECONDS = 0.5
#: Events after which the library neither is nor gets connected by itself.
_FINAL = (LoggedOut, StreamReplaced, TemporarilyBanned, Outdated)


class Connection:
    """A client on the library, from its creation to its end.

    Attributes:
        jid: the companion's JID, as ``60123456789:1@s.whatsapp.net``; None until a pairing succeeded.
        own_lid: the account's LID without a device; empty until it is known.
        neonize: the library's client.
        settled: set at the first sign that the library is through with its registry: the connect stands, failed, or
            waits for a pairing.
        left_out: message IDs, each with the JIDs of the devices it could not be encrypted for.
        contacts: with how many contacts the stored session has Signal sessions.
        abandoned: whether the library kept a thread that will never end (a pairing that was broken off).
    """

    def __init__(
        self,
        binding: Binding,
        *,
        store_url: str,
        jid: str | None,
        proxy: str | None,
        own_proxy: bool,
        on_event: Callable[[ClientEvent], None],
        on_secret_not_stored: Callable[[str], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.jid = jid
        self._binding = binding
        self._proxy = proxy
        self._own_proxy = own_proxy
        self._on_event = on_event
        self._on_secret_not_stored = on_secret_not_stored
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._identity = f"{jid or 'pairing'}#{secrets.token_hex(8)}".encode()
        self.neonize = binding.new_client(store_url, parse_address(jid) if jid else None, self._identity)
        self.own_lid = ""
        self.settled = asyncio.Event()
        self.left_out: dict[str, set[str]] = {}
        self.contacts = 0
        self.abandoned = False
        self._connecting: asyncio.Task[None] | None = None
        self._connected = False
        self._closing: asyncio.Task[None] | None = None
        self._muted = False
        #: Whether the library's event loop for this client runs. Only then, or when the connect failed, may it be
        #: stopped: it looks its client up once more before, and a missing one ends the process.
        self._loaded = asyncio.Event()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._trouble: ClientError | None = None
        self._ended = False
        self._logged_out = False
        self._failure = ""

    @property
    def connected(self) -> bool:
        """Whether the session is logged in, as far as events tell. A dead socket shows only by keep-alives."""
        return self._connected

    @property
    def usable(self) -> bool:
        """Whether the client is neither closed, closing nor ended by WhatsApp."""
        return not self._ended and self._closing is None

    @property
    def closing(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing is not None

    @property
    def remains(self) -> object | None:
        """What must outlive the client: the library may call its log callback at any later time."""
        return getattr(self.neonize, "_connect_refs", None)

    # Opening

    async def begin(self) -> None:
        """Start to connect. Hold the gate's ``changing()`` until :attr:`settled`."""
        for name in EVENTS:
            self.neonize.event(self._binding.event_class(name))(self._handler(name))
        self.neonize.event.qr(self._on_qr)
        # No other way tells how a pairing ended, or that the event loop of the Go side runs.
        setattr(self.neonize, "_NewAClient__onLoginStatus", self._on_login_status)  # noqa: B010
        execute = self.neonize.event.execute

        def observe(identity: int, data: int, size: int, code: int) -> None:
            execute(identity, data, size, code)
            if code == 0:
                self._loop.call_soon_threadsafe(self._on_loaded)

        self.neonize.event.execute = observe
        self._connecting = await self._binding.connect(self.neonize, self._on_log, self._proxy)
        self._connecting.add_done_callback(self._on_connect_ended)

    async def opened(self, seconds: float) -> None:
        """Wait until the session is logged in or, without one, the first QR text has come.

        Raises:
            ClientError: it will not, or did not within ``seconds``.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._opened), seconds)
        except TimeoutError:
            if self._trouble is not None:
                raise self._trouble from None
            raise ClientError("connect_timeout", f"WhatsApp did not log the device in within {seconds:g} s.") from None

    # Closing

    async def close(self) -> None:
        """Disconnect and give back what the library holds; afterwards no event is delivered any more.

        It may be called at any time, repeatedly, and cancelled: the closing itself goes on. It takes up to 10 s
        while the library is dialling.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._release())
        await asyncio.shield(self._closing)

    async def _release(self) -> None:
        if self._connecting is not None:
            await self._let_go(self._connecting)
        self._muted = True
        self._end(None)
        self._on_closed(self)

    async def _let_go(self, connecting: asyncio.Task[None]) -> None:
        await self._binding.disconnect(self._identity)
        loaded = self._loop.create_task(self._loaded.wait())
        # A pairing without success, and a session deleted while it was loading, leave the library waiting for ever.
        lost = (self.jid is None or self._logged_out) and not self._loaded.is_set()
        await asyncio.wait(
            {connecting, loaded},
            timeout=_LOST_SECONDS if lost else _SETTLE_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        loaded.cancel()
        if self._loaded.is_set() or connecting.done():
            await self._stop()
        else:
            self.abandoned = True

    async def _stop(self) -> None:
        async with self._binding.gate.changing():
            await self._binding.stop(self._identity)
        if self._connecting is not None:
            await asyncio.wait({self._connecting}, timeout=_END_SECONDS)
        self.abandoned = False

    # Events

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        async def handle(_client: Any, message: Any) -> None:
            event = translate(name, message, own_lid=self.own_lid)
            if event is not None:
                self._deliver(event)

        return handle

    async def _on_qr(self, _client: Any, text: bytes) -> None:
        self._deliver(PairingQr(text.decode()))

    def _on_login_status(self, _identity: int, status: int) -> None:
        outcome = self._binding.text_at(status)
        # A success is told by the Paired event, with the JID.
        if outcome != "success":
            self._loop.call_soon_threadsafe(self._deliver, PairingEnded(outcome))

    def _on_loaded(self) -> None:
        self.own_lid = address_of(self.neonize.me.LID)
        self._loaded.set()
        self.settled.set()
        if self.abandoned:
            # It was given up too early, and has come to life unattended.
            self._closing = self._loop.create_task(self._stop())

    def _on_connect_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.settled.set()
        if self._closing is not None or error is None:
            self._end(None)
        elif self._loaded.is_set():
            # The connect had succeeded: an event could not be encoded, and the library stopped delivering any.
            self._connected = False
            self._deliver(lost_event(str(error), self._failure))
            self._end(ClientError("library_stopped", "The library stopped delivering this device's events."))
        else:
            self._end(connect_error(str(error), own_proxy=self._own_proxy))

    def _deliver(self, event: ClientEvent) -> None:
        """Hand an event to the device and draw our own conclusions from it."""
        if self._muted or (self._logged_out and isinstance(event, LoggedOut)):
            return
        self._connected = isinstance(event, Connected) or (
            self._connected and not isinstance(event, (Disconnected, StreamFailed, ConnectRefused, *_FINAL))
        )
        if isinstance(event, Paired):
            self.jid = event.jid
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  # the library's event loop must not suffer from its listener
            logger(jid=self.jid).exception("A device failed to handle an event", event_type=type(event).__name__)
        self._conclude(event)

    def _conclude(self, event: ClientEvent) -> None:
        match event:
            case Connected():
                self._succeed()
            case PairingQr():
                self.settled.set()
                self._succeed()
            case LoggedOut(code):
                self._logged_out = True
                self._end(ClientError("logged_out", f"WhatsApp has logged the device out ({code})."))
            case StreamReplaced():
                self._end(ClientError("replaced", "Another client uses the same session."))
            case TemporarilyBanned(code):
                self._end(ClientError("banned", f"WhatsApp has banned the account for a time ({code})."))
            case Outdated():
                self._end(ClientError("outdated", "WhatsApp no longer accepts this version of the library."))
            case PairingEnded(outcome):
                self._end(ClientError("pairing_ended", f"The pairing ended: {outcome}."))
            case ConnectRefused(code):
                refused = ClientError("server_error", f"WhatsApp refuses the login for now ({code}).")
                # After these two, the library tries again by itself.
                if code in {500, 503}:
                    self._trouble = refused
                else:
                    self._end(refused)
            case StreamFailed(code):
                self._trouble = ClientError("server_error", f"WhatsApp ended the stream ({code}).")
            case Disconnected():
                self._trouble = self._trouble or ClientError("connect_refused", "WhatsApp closed the connection.")

    def _succeed(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _end(self, error: ClientError | None) -> None:
        """Note that this client will not come (back) to life, and let go whoever waits for it."""
        self._ended = True
        self._connected = False
        if not self._opened.done():
            self._opened.set_exception(error or ClientError("closed", "The client was closed."))
            self._opened.exception()  # whoever waits gets it; without anybody, it is no complaint

    def _on_log(self, address: int, size: int) -> None:
        """Read one of the library's log lines; called in its threads, at any time, synchronously."""
        try:
            level, line = self._binding.log_line(address, size)
            if (message_id := secret_not_stored(line)) is not None:
                # Before this returns, the message is neither encrypted nor sent: time to write it down.
                self._on_secret_not_stored(message_id)
                self._from_thread(self._deliver, SecretNotStored(message_id))
            elif (copy := not_encrypted(line)) is not None:
                self.left_out.setdefault(copy[0], set()).add(copy[1])
            elif (node := failure_node(line)) is not None:
                self._failure = node
            elif (event := logged_event(line)) is not None:
                self._from_thread(self._deliver, event)
            elif (ending := logged_ending(line)) is not None:
                self._from_thread(self._loop.call_later, _ENDING_EVENT_SECONDS, self._deliver, ending)
            logger(jid=self.jid).debug("The WhatsApp library says", text=line[:300], library_level=level)
        except Exception:  # noqa: BLE001  # it would be raised into Go
            with contextlib.suppress(Exception):
                logger(jid=self.jid).exception("A log line of the WhatsApp library was not understood")

    def _from_thread(self, function: Callable[..., Any], *arguments: Any) -> None:
        # The loop may be closed by now; then nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)
