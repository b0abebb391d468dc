"""The WhatsApp device actor: one mailbox, one message at a time, one state machine, at most one client.

It runs as an asyncio task inside a shard. What is to be done about a trouble is its supervisor's decision; the
device carries it out, keeps its row true, and sends what is on its lane.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from actors.whatsapp import events as happened
from actors.whatsapp import session
from actors.whatsapp.events import ClientError, ClientEvent
from actors.whatsapp.inbound import record_message
from actors.whatsapp.mailbox import (
    Check,
    Deadline,
    Depart,
    DeviceMessage,
    Happened,
    Pair,
    Pause,
    Refresh,
    SendingFailed,
    Stranded,
    Supervisor,
    Unlink,
    Unwell,
    Work,
)
from actors.whatsapp.receipts import Receipts
from actors.whatsapp.sending import Sender
from config.errors import Refused
from config.logging import logger
from storage import care, devices, restarts
from storage.devices import Device, StateChange
from storage.restarts import Restart

if TYPE_CHECKING:
    from actors.whatsapp.client import WhatsAppClient
    from actors.whatsapp.services import Services


#: Failure codes of the client that stand in the supervisor's table under another name.
_CAUSE_OF_CLIENT_ERROR = {"closed": "stuck", "already_open": "stuck", "library_stopped": "crashed"}
_PROBE_SECONDS = 4.0
#: How often a device that is to move looks whether its pairing is over, in seconds.
_PAIRING_LOOK_SECONDS = 0.5
#: States in which nothing but a moment keeps a device from being connected.
_ABLE_TO_CONNECT = frozenset({"connecting", "online", "reconnecting", "refreshing"})
#: Events that are true whichever client heard them.
_FACTS = (happened.ReceiptReceived, happened.MessageReceived)


@dataclass(frozen=True)
class Known:
    """What was found out for all devices of a shard together, so that none has to ask again.

    Attributes:
        settled: no earlier owner left an attempt without an outcome.
        idle: nothing waits on its lane; what comes later is hinted at, or found within a second.
    """

    settled: bool = False
    idle: bool = False


class WhatsAppDevice:
    """One WhatsApp companion and everything that happens to it."""

    def __init__(
        self,
        services: Services,
        supervisor: Supervisor,
        row: Device,
        owner: str,
        known: Known = Known(),
    ) -> None:
        self.id = row.id
        self.name = row.name
        self.mailbox: asyncio.Queue[DeviceMessage] = asyncio.Queue()
        self.state = row.state
        #: Set when a removed device's session is gone from the server and the store.
        self.unlinked = asyncio.Event()
        self._row = row
        self._services = services
        self._supervisor = supervisor
        self._client: WhatsAppClient | None = None
        self._generation = 0
        self._era = 0
        self._refreshes_waiting = 0
        self._known = known
        self._may_have_work = not known.idle
        self._leaving = False
        self._departed = False
        self._ban_seconds: float | None = None
        self._sender = Sender(services, row.id, row.name, owner)
        self._receipts = Receipts(services, row.id)
        self._sending: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()

    @property
    def jid(self) -> str | None:
        """The companion that it is bound to."""
        return self._row.jid

    def tell(self, message: DeviceMessage) -> None:
        """Put a message into the mailbox."""
        self._refreshes_waiting += isinstance(message, Refresh)
        self.mailbox.put_nowait(message)

    async def run(self) -> None:
        """Handle the mailbox, one message at a time, until it departs or is cancelled.

        An error ends the actor; its parent acts.
        """
        if not self._known.settled:
            await self._sender.settle_orphans(self._row.jid)
        await self._receipts.catch_up()
        while not self._departed:
            await self._handle(await self.mailbox.get())

    async def _handle(self, message: DeviceMessage) -> None:
        match message:
            case Work():
                self._may_have_work = True
                self._start_sending()
            case Stranded(seconds):
                await self._sender.settle_stranded(self._row.jid, seconds)
            case Happened(generation, event):
                # What people sent and confirmed is true whichever client heard it; the rest is the living client's.
                if generation == self._generation or isinstance(event, _FACTS):
                    await self._on_event(event)
            case Refresh():
                self._refreshes_waiting -= 1
                await self._refresh(message)
            case Pair():
                await self._pair(message)
            case Pause():
                await self._pause()
            case Unlink():
                await self.unlink()
            case Depart():
                await self._depart(message)
            case Check(number):
                self._start_check(number)
            case Unwell(generation):
                if generation == self._generation:
                    await self._trouble("send_hangs")
            case SendingFailed(error):
                raise error
            case Deadline(cause_code, era):
                if era == self._era:
                    await self._passed(cause_code)

    async def leave(self, drain_seconds: float) -> None:
        """Let the one send under way finish, for at most ``drain_seconds``, then close the client."""
        self._leaving = True
        if self._sending is not None and not self._sending.done():
            await asyncio.wait({self._sending}, timeout=drain_seconds)
            self._sending.cancel()
        await self._close_client()

    async def _depart(self, order: Depart) -> None:
        """End once at rest: no pairing is open and no send is under way; what was heard until then is recorded."""
        if self.state == "pairing" and self._client is not None:
            asyncio.get_running_loop().call_later(_PAIRING_LOOK_SECONDS, self.tell, order)
            return
        self._leaving = True
        if self._sending is not None and not self._sending.done():
            # Beside the mailbox: a send that hangs is ended by what comes in there.
            self._sending.add_done_callback(lambda _: self.tell(order))
            return
        await self._close_client()
        while not self.mailbox.empty():
            message = self.mailbox.get_nowait()
            if isinstance(message, Happened) and isinstance(message.event, _FACTS):
                await self._on_event(message.event)
        self._departed = True

    # --- sending -----------------------------------------------------------------------------------------

    def _start_sending(self) -> None:
        """Work through the lane beside the mailbox, so that a slow send never hides an event."""
        if self._leaving or (self._sending is not None and not self._sending.done()):
            return
        client = self._healthy_client()
        if client is not None:
            self._sending = asyncio.ensure_future(self._send_all(client))
            self._sending.add_done_callback(self._sending_ended)

    def _may_send(self, client: WhatsAppClient) -> bool:
        # A client is busy when an earlier send is still under way in the library, its message in doubt meanwhile.
        return client.connected and not client.busy and self.state == "online"

    def _sending_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.tell(SendingFailed(error))

    def _healthy_client(self) -> WhatsAppClient | None:
        """Return a client that can send now. When there is none and none is on its way, ask for a refresh."""
        if self.state == "online" and self._client is not None and self._client.connected:
            return self._client
        lost = self.state in {"online", "connecting", "refreshing"} and self._client is None
        if lost and not self._refreshes_waiting and not self._supervisor.refresh_is_pending(self.id):
            self.tell(Refresh("send", "A message waits and there is no healthy client.", 1))
        return None

    async def _send_all(self, client: WhatsAppClient) -> None:
        give_up = functools.partial(self.tell, Unwell(self._generation))

        def may_send() -> bool:
            return not self._leaving and client is self._client and self._may_send(client)

        await self._sender.send_lane(client, may_send, give_up)

    def _start_check(self, number: str) -> None:
        """Ask WhatsApp about a number beside the mailbox; whoever wants to know looks for the answer's row."""
        client = self._client
        if client is not None and client.connected and self.state == "online":
            task = asyncio.ensure_future(self._check(client, number))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _check(self, client: WhatsAppClient, number: str) -> None:
        try:
            there = await client.is_on_whatsapp(number)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing depends on the answer
            logger().warning("WhatsApp did not say whether a number is there", device=self.name, reason=str(error))
            return
        await self._services.store(care.note_check, number, there)

    # --- events ------------------------------------------------------------------------------------------

    async def _on_event(self, event: ClientEvent) -> None:
        match event:
            case happened.Connected() | happened.KeepAliveRestored():
                if self.state != "online":
                    await self._went_online()
            case happened.Disconnected():
                if self.state != "pairing":
                    await self._trouble("disconnected")
            case happened.StreamFailed("library_stopped"):
                await self._trouble("stuck", "the library stopped working for it")
            case happened.StreamFailed(code):
                if self.state != "pairing":
                    await self._trouble("stream_error", f"code {code}")
            case happened.ConnectRefused(code, text):
                await self._trouble("disconnected", f"The server answered {code} {text}".strip())
            case happened.KeepAliveTimedOut():
                if self.state == "online":
                    await self._trouble("keepalive_timeout")
            case happened.LoggedOut(code):
                await self._trouble("logged_out", f"code {code}" if code else "")
            case happened.StreamReplaced():
                await self._trouble("replaced")
            case happened.TemporarilyBanned(code):
                await self._trouble("banned", f"code {code}")
            case happened.ClientOutdated():
                await self._trouble("outdated")
            case happened.PairingQr(text):
                await self._services.store(devices.set_pairing, self.id, qr=text, code=None)
            case happened.PairingEnded(outcome):
                await self._trouble("pairing_ended", outcome)
            case happened.Paired(jid, lid):
                await self._bind(jid, lid)
            case happened.ReceiptReceived():
                await self._receipts.record(event)
            case happened.MessageReceived():
                if not event.from_me:
                    await record_message(self._services, self.id, self.name, event)
            case happened.SecretNotStored(message_id):
                logger().warning("The message secret was not stored", device=self.name, whatsapp_id=message_id)

    # --- troubles and states -----------------------------------------------------------------------------

    async def _trouble(self, cause_code: str, detail: str = "") -> None:
        """Report a trouble to the supervisor and do what it decides."""
        decision = self._supervisor.decide(self.id, cause_code, detail, self._ban_seconds)
        if decision.probe and self._client is not None:
            if await self._client.probe(_PROBE_SECONDS):
                return
            await self._trouble("probe_failed")
            return
        if not decision.wait_for_library:
            await self._close_client()
        if cause_code == "logged_out" and self._row.jid is not None:
            await self._services.store(devices.unbind, self.id, self._row.jid)
        await self._set_state(decision.state, cause_code, decision.words, decision.next_attempt_in)
        if decision.wait_for_library:
            self._set_deadline("reconnect_timeout", self._services.settings.reconnect_seconds)

    async def _passed(self, cause_code: str) -> None:
        """Act on a passed deadline; a device that was held back meanwhile is not at fault and gets another."""
        if cause_code == "reconnect_timeout" and self._services.gate.holds(self.id):
            self._set_deadline(cause_code, self._services.settings.reconnect_seconds)
            return
        await self._trouble(cause_code)

    async def _went_online(self) -> None:
        self._supervisor.came_online(self.id)
        await self._set_state("online", "connected", "Connected.")
        if self._may_have_work:
            self.tell(Work())
        self._may_have_work = True

    async def _set_state(
        self, state: str, code: str, words: str, next_in: float | None = None, *, said: bool = False
    ) -> Device | None:
        """Keep the row true: state, reason in code and words, and when something is tried next; return it.

        ``said``: the log tells of it already.
        """
        changed = state != self.state
        self.state = state
        self._era += 1
        next_at = None if next_in is None else datetime.now(UTC) + timedelta(seconds=next_in)
        write = logger().info if state in {"online", "refreshing", "connecting", "pairing"} else logger().warning
        write = logger().debug if said else write
        write(f"Device is {state}", device=self.name, code=code, reason=words, next_attempt_at=next_at)
        told_as = f"{time.time_ns()}" if changed else None
        return await self._services.states.record(StateChange(self.id, state, code, words, next_at, told_as))

    def _set_deadline(self, cause_code: str, seconds: float) -> None:
        message = Deadline(cause_code, self._era)
        asyncio.get_running_loop().call_later(seconds, self.tell, message)

    # --- refresh: one path for the supervisor, the operator and a send -----------------------------------

    async def _refresh(self, order: Refresh) -> None:
        """Reload the stored session in five steps, and record what came of it."""
        started = time.monotonic()
        logger().info(
            f"🔄 Refreshing WhatsApp device {self.name} …",
            device=self.name,
            reason=order.cause,
            attempt=order.attempt,
        )
        passing = "connecting" if order.cause_code in {"start", "shard_died", "moved"} else "refreshing"
        row = await self._set_state(passing, order.cause_code, order.cause, said=True)
        cause, detail = await self._reload_session(row)
        self._services.gate.end_turn(self.id)
        seconds = time.monotonic() - started
        if cause is None:
            logger().info(
                f"✅ Refreshed WhatsApp device {self.name}",
                device=self.name,
                seconds=round(seconds, 3),
                detail=detail,
            )
        else:
            logger().warning(
                f"❌ Could not refresh WhatsApp device {self.name}",
                device=self.name,
                seconds=round(seconds, 3),
                code=cause,
                reason=detail,
            )
        if order.cause_code != "start" or cause is not None:
            outcome = "ok" if cause is None else f"{cause}: {detail}".rstrip(": ")
            await self._services.store(
                restarts.record,
                Restart(
                    what="device",
                    name=self.name,
                    device_id=self.id,
                    cause_code=order.cause_code,
                    cause=order.cause,
                    attempt=order.attempt,
                    tried="reloaded its session from the store",
                    outcome=outcome,
                    seconds=seconds,
                    request=order.request,
                ),
            )
        if cause is not None:
            await self._trouble(cause, detail)

    async def _reload_session(self, row: Device | None) -> tuple[str | None, str]:
        """Take the five steps with the device's row; return (None, what was found) or (cause code, detail)."""
        await self._close_client()
        if row is None:
            return "no_jid", "the device was removed"
        self._row = row
        # 1. the device has a companion
        if row.jid is None:
            return ("logged_out" if row.state == "logged_out" else "no_jid"), ""
        # 2. to 4. its session is in the store, a client is made from it and connects with it, within a deadline
        try:
            client = await self._open(row.jid)
        except ClientError as error:
            return self._cause_of(error), str(error)
        # 5. it is registered, and the fleet's registry says so
        self._client = client
        await self._went_online()
        return None, f"{client.contacts} Signal sessions"

    def _cause_of(self, error: ClientError) -> str:
        if error.code == "proxy_error" and self._row.proxy is None:
            return "connect_refused"  # the proxy was our own gate
        return _CAUSE_OF_CLIENT_ERROR.get(error.code, error.code)

    async def _open(self, jid: str | None) -> WhatsAppClient:
        self._generation += 1
        generation = self._generation
        self._ban_seconds = None
        with self._services.recorder.inside(self.id):
            return await self._services.library.open(
                jid=jid,
                proxy=self._services.gate.way_for(self.id, self._proxy()),
                on_event=lambda event: self._receive(generation, event),
                on_secret_not_stored=self._note_missing_secret,
                connect_seconds=self._services.settings.connect_seconds,
            )

    def _receive(self, generation: int, event: ClientEvent) -> None:
        if isinstance(event, happened.TemporarilyBanned) and generation == self._generation:
            # Known at once: the opening that it ends fails before the mailbox comes to it.
            self._ban_seconds = event.seconds
        if isinstance(event, happened.ReceiptReceived):
            self._receipts.note(event)
        self.tell(Happened(generation, event))

    def _note_missing_secret(self, message_id: str) -> None:
        """Write to the journal; called from the library's own thread before it encrypts."""
        attempt = self._sender.attempt_under_way
        if attempt is not None:
            self._sender.journal.write(attempt, message_id)

    def _proxy(self) -> str | None:
        if self._row.proxy is None:
            return None
        return self._services.seal.open(self._row.proxy).get("proxy")

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        self._generation += 1
        if client is not None:
            await client.close()

    # --- pairing, pausing, leaving -----------------------------------------------------------------------

    async def _pair(self, order: Pair) -> None:
        """Open a new companion and show its QR (or a code to type) until a phone links it or time runs out."""
        self._supervisor.forget(self.id)
        await self._close_client()
        await self._set_state("pairing", "pairing", "Waiting for a phone to be linked.")
        try:
            self._client = await self._open(None)
            if order.number is not None:
                code = await self._client.pair_code(order.number)
                await self._services.store(devices.set_pairing, self.id, qr=None, code=code)
        except ClientError as error:
            await self._trouble("pairing_ended", str(error))
            return
        self._set_deadline("pairing_ended", self._services.settings.pairing_seconds)

    async def _bind(self, jid: str, lid: str) -> None:
        try:
            await self._services.store(devices.bind, self.id, jid, lid)
        except Refused as error:
            await self._trouble("pairing_ended", error.sentence)
            return
        row = await self._services.store(devices.by_id, self.id)
        if row is not None:
            self._row = row
        logger().info("A phone was linked", device=self.name, jid=jid)

    async def _pause(self) -> None:
        self._supervisor.forget(self.id)
        await self._close_client()
        await self._set_state("paused", "paused", "Paused by the operator; its messages wait.")

    async def unlink(self) -> None:
        """Log out at the server, best effort, and delete the session.

        Called by the supervisor only when nothing handles the mailbox (any more); otherwise tell it to ``Unlink``.
        """
        self._supervisor.forget(self.id)
        jid = self._row.jid
        if jid is not None:
            if (self._client is None or not self._client.connected) and self.state in _ABLE_TO_CONNECT:
                await self._connect_to_log_out(jid)
            if self._client is not None and self._client.connected:
                await self._client.logout()
        await self._close_client()
        if jid is not None:
            await self._services.look(session.delete_session, jid)
        self.unlinked.set()

    async def _connect_to_log_out(self, jid: str) -> None:
        """Connect once more: a device that is only just away must not stay in its phone's list for ever."""
        await self._close_client()
        if await self._services.look(session.stored_session, jid) is None:
            return
        try:
            async with asyncio.timeout(self._services.settings.connect_seconds):
                await self._services.gate.turn(self.id)
            self._client = await self._open(jid)
        except (ClientError, TimeoutError) as error:
            reason = str(error) or "it was not its turn in time"
            logger().warning("A removed device could not connect to log out", device=self.name, reason=reason)
        finally:
            self._services.gate.end_turn(self.id)
