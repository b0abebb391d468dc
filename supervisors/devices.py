"""DeviceSupervisor: the parent of one shard's devices. It restarts a device by reloading its WhatsApp session.

What to do about a trouble comes from ``policy.py``; this module applies it: it keeps each device's back-off, sets the
timers, starts a failed device actor again, and looks at the lanes every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from actors.whatsapp.device import Known, WhatsAppDevice
from actors.whatsapp.mailbox import Check, Decision, Depart, DeviceMessage, Pair, Pause, Refresh, Stranded, Unlink, Work
from config.logging import logger
from storage import devices
from storage.devices import Device
from storage.outbox import Outbox
from supervisors.policy import (
    CAN_HEAL,
    OUTAGE_CAUSES,
    POLICIES,
    SHARED_CAUSES,
    UNKNOWN_CAUSE,
    Action,
    Backoff,
    RestartIntensity,
    Trouble,
    delay_before,
)

if TYPE_CHECKING:
    from actors.whatsapp.services import Services

#: More refreshes of one device than this in ten minutes are no longer ordinary: it slows down to the longest back-off.
_INTENSITY_LIMIT = 12
_INTENSITY_WINDOW = 600.0
#: How long logging a removed device out may take, in seconds.
_REMOVAL_SECONDS = 15.0
#: How long a connection may take to be closed for certain (a dial under way ends after 30 s at the latest), in seconds.
_CLOSING_SECONDS = 45.0
#: How often attempts that nobody is at are looked for, in seconds; and how much longer than a send may take one must
#: be under way for that: a check of its recipient and the fetching of its file come first.
_LOOK_FOR_STRANDED_SECONDS = 15.0
_STRANDED_SECONDS = 90.0
#: States a restarted process leaves as they are: only the operator, a phone or a time ends them.
_STAYS = frozenset({"needs_pairing", "logged_out"})


@dataclass
class Supervised:
    """One device and what its supervisor remembers of it."""

    actor: WhatsAppDevice
    task: asyncio.Task[None]
    trouble: Trouble = field(default_factory=Trouble)
    intensity: RestartIntensity = field(default_factory=lambda: RestartIntensity(_INTENSITY_LIMIT, _INTENSITY_WINDOW))
    pending: asyncio.Task[None] | None = None
    #: The refresh that is pending, and when it is due (monotonic seconds); a slowed one is not brought forward.
    order: Refresh | None = None
    due: float = 0.0
    slowed: bool = False
    lives: int = 1
    #: It is being let go: its actor is not restarted, and takes no commands any more.
    leaving: bool = False


class DeviceSupervisor:
    """Hosts devices, decides about their troubles, and restarts what fails."""

    def __init__(self, services: Services, *, restarted: bool, on_news: Callable[[], None] = lambda: None) -> None:
        self._services = services
        self._restarted = restarted
        self._on_news = on_news
        settings = services.settings
        self._backoff = Backoff(settings.backoff_first_seconds, settings.backoff_longest_seconds)
        self._supervised: dict[int, Supervised] = {}
        self._leaving = False
        self._removals: dict[int, asyncio.Task[None]] = {}
        self._departures: dict[int, asyncio.Task[None]] = {}
        self._wanted: frozenset[int] = frozenset()
        #: Devices that came from another shard and are not online yet.
        self._opening: set[int] = set()
        self._early: dict[int, list[tuple[str, str | None, str]]] = {}
        #: As somebody who never made an attempt: whoever made one on a device that nobody is at here, left it.
        self._lanes = Outbox(services.database, f"{services.owner}/supervisor")
        self._looked_for_stranded = time.monotonic()

    # --- what devices ask of their supervisor ------------------------------------------------------------

    def decide(self, device_id: int, cause_code: str, detail: str = "", ban_seconds: float | None = None) -> Decision:
        """Look a trouble up in the policy and set the timer that it calls for."""
        supervised = self._supervised[device_id]
        if cause_code in OUTAGE_CAUSES:
            self._services.gate.fell(device_id)
        policy = POLICIES.get(cause_code, POLICIES[UNKNOWN_CAUSE])
        words = f"{policy.words} ({detail})" if detail else policy.words
        if policy.action is Action.PROBE:
            return Decision(policy.state, words, None, wait_for_library=True, probe=True)
        if policy.action is Action.WAIT_FOR_LIBRARY:
            return Decision(policy.state, words, self._services.settings.reconnect_seconds, wait_for_library=True)
        self.forget(device_id)
        if policy.action is not Action.REFRESH:
            self._settled(device_id)
        if policy.action in {Action.STOP, Action.NONE}:
            return Decision(policy.state, words, None)
        now = time.monotonic()
        attempt = supervised.trouble.next_attempt(now, self._services.settings.stable_seconds)
        seconds = delay_before(policy, supervised.trouble, attempt, self._backoff, ban_seconds)
        supervised.slowed = policy.action is Action.REFRESH and supervised.intensity.exceeded(now)
        if supervised.slowed:
            seconds = max(seconds, self._backoff.longest)
            words += " It happens too often: slowed down."
        self._refresh_in(supervised, seconds, Refresh(cause_code, words, attempt))
        return Decision(policy.state, words, seconds)

    def came_online(self, device_id: int) -> None:
        """Note that a device is online."""
        self.forget(device_id)
        self._services.gate.came_online()
        self._supervised[device_id].trouble.came_online(time.monotonic())
        self._settled(device_id)
        self._bring_forward()

    def _bring_forward(self) -> None:
        """Let neighbours that wait out a trouble of all devices try soon: it has just ended for one of them."""
        for supervised in self._supervised.values():
            order = supervised.order
            if order is None or order.cause_code not in SHARED_CAUSES or supervised.slowed:
                continue
            seconds = random.random()  # noqa: S311 - jitter is no secret
            if supervised.due - time.monotonic() > seconds:
                self.forget(supervised.actor.id)
                self._refresh_in(supervised, seconds, order)

    def forget(self, device_id: int) -> None:
        """Call off the refresh that is pending for a device."""
        supervised = self._supervised.get(device_id)
        if supervised is not None and supervised.pending is not None:
            supervised.pending.cancel()
            supervised.pending = supervised.order = None

    def refresh_is_pending(self, device_id: int) -> bool:
        """Return whether a refresh is on its way to the device."""
        supervised = self._supervised[device_id]
        return supervised.pending is not None

    # --- what the shard asks of the supervisor -----------------------------------------------------------

    async def host(self, device_ids: Iterable[int], at_rest: Iterable[int] = (), *, moved: bool = False) -> None:
        """Host exactly these devices: start new ones, let go of the others, which may take until after this returns.

        Args:
            device_ids: those to host.
            at_rest: those to let go of only when nothing of them is under way.
            moved: new ones that are linked were hosted by another shard.
        """
        self._wanted = frozenset(device_ids)
        for device_id in set(self._supervised) - set(self._removals) - self._wanted:
            self._release(device_id, at_rest=device_id in at_rest)
        await self._take_in(sorted(self._wanted - set(self._supervised)), moved=moved)

    async def _take_in(self, fresh: list[int], *, moved: bool) -> None:
        if not fresh:
            return
        rows = await self._services.store(devices.by_ids, fresh)
        # Devices with messages waiting go first.
        urgent = set(await self._services.run(lambda: self._lanes.lanes_with_work(fresh)))
        # What earlier owners left is looked for once for all of them.
        left = {each.device_id for each in await self._services.run(lambda: self._lanes.orphans(fresh))}
        for device_id in sorted(fresh, key=lambda each: (each not in urgent, each)):
            if device_id in rows and device_id not in self._supervised:
                known = Known(settled=device_id not in left, idle=device_id not in urgent)
                self._start(rows[device_id], moved=moved, known=known)
                for command, number, request in self._early.pop(device_id, []):
                    self.tell(device_id, command, number, request)

    def _release(self, device_id: int, *, at_rest: bool) -> None:
        """Let go of a device, now or once nothing of it is under way. One that hangs must not hold up the others."""
        supervised = self._supervised[device_id]
        if supervised.leaving or (at_rest and device_id in self._departures):
            return
        work = self._let_go_at_rest(supervised) if at_rest else self._let_go(device_id)
        task = self._departures[device_id] = asyncio.ensure_future(work)
        task.add_done_callback(lambda ended: self._released(device_id, ended))

    def _released(self, device_id: int, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().error("A device could not be let go", id=device_id, exc_info=error)
        if self._departures.get(device_id) is task:
            del self._departures[device_id]
        if device_id in self._wanted and device_id not in self._supervised and not self._leaving:
            # It was given back meanwhile.
            self._departures[device_id] = asyncio.ensure_future(self._take_in([device_id], moved=True))

    async def _let_go_at_rest(self, supervised: Supervised) -> None:
        supervised.actor.tell(Depart())
        await asyncio.wait({supervised.task})
        await self._let_go(supervised.actor.id)

    def hosted(self) -> tuple[int, ...]:
        """Return the devices that are hosted here, those included that are being closed or logged out."""
        return tuple(sorted(self._supervised.keys() | self._removals.keys()))

    def opening(self) -> tuple[int, ...]:
        """Return the devices that came from another shard and are not online yet."""
        return tuple(sorted(self._opening))

    def _settled(self, device_id: int) -> None:
        """Note that a device that came from another shard is online, or will not be for now."""
        if device_id in self._opening:
            self._opening.discard(device_id)
            self._on_news()

    def tell(self, device_id: int, command: str, number: str | None, request: str) -> None:
        """Hand an operator's command to its device."""
        supervised = self._supervised.get(device_id)
        if supervised is None or supervised.leaving:
            # It overtook the row of a device that is being taken over right now.
            self._early.setdefault(device_id, []).append((command, number, request))
            return
        message = _message_of(command, number, request)
        if command in {"pause", "pair"}:
            self._settled(device_id)
        if command in {"refresh", "resume"}:
            self.forget(device_id)
            supervised.trouble.attempts = 0
            self._services.gate.admit(device_id)
        supervised.actor.tell(message)

    def work_waits(self, device_ids: Iterable[int]) -> None:
        """Note a hint that there is work for these devices."""
        for device_id in device_ids:
            supervised = self._supervised.get(device_id)
            if supervised is not None:
                supervised.actor.tell(Work())

    async def run(self) -> None:
        """Look at the lanes every second, hint or no hint, until the shard leaves."""
        while not self._leaving:
            await self._look_at_lanes()
            await asyncio.sleep(self._services.settings.poll_seconds)

    async def _look_at_lanes(self) -> None:
        patience = self._services.settings.in_doubt_patience_seconds
        if patience and self._supervised:
            hosted = self.hosted()
            await self._services.run(lambda: self._lanes.end_patience(hosted, patience))
        if time.monotonic() - self._looked_for_stranded > _LOOK_FOR_STRANDED_SECONDS:
            self._looked_for_stranded = time.monotonic()
            await self._settle_stranded()
        ids = [device_id for device_id, each in self._supervised.items() if each.actor.state in CAN_HEAL]
        if ids:
            self.work_waits(await self._services.run(lambda: self._lanes.lanes_with_work(ids)))

    async def _settle_stranded(self) -> None:
        """Have attempts settled that lost their outcome although nothing has fallen that would have shown it."""
        hosted = self.hosted()
        seconds = self._services.settings.send_seconds + _STRANDED_SECONDS
        if hosted:
            stranded = await self._services.run(lambda: self._lanes.stranded(hosted, seconds))
            for device_id in {each.device_id for each in stranded}:
                if (supervised := self._supervised.get(device_id)) is not None:
                    supervised.actor.tell(Stranded(seconds))

    async def leave(self) -> None:
        """Drain and close every device."""
        self._leaving = True
        await asyncio.gather(*(self._let_go(device_id) for device_id in list(self._supervised)))

    # --- starting and restarting device actors -----------------------------------------------------------

    def _start(
        self,
        row: Device,
        lives: int = 1,
        earlier: Supervised | None = None,
        *,
        moved: bool = False,
        known: Known = Known(),  # noqa: B008 - it is frozen
    ) -> None:
        owner = f"{self._services.owner}/{row.id}.{lives}"
        actor = WhatsAppDevice(self._services, self, row, owner, known)
        task = asyncio.ensure_future(actor.run())
        supervised = Supervised(actor, task, lives=lives)
        if earlier is not None:
            supervised.trouble, supervised.intensity = earlier.trouble, earlier.intensity
        self._supervised[row.id] = supervised
        task.add_done_callback(lambda ended: self._ended(row.id, ended))
        if earlier is None:
            self._first_order(row, supervised, moved=moved and row.jid is not None)

    def _first_order(self, row: Device, supervised: Supervised, *, moved: bool) -> None:
        """Tell a device what to do in a process that it is new to."""
        if row.desired_state == "paused":
            supervised.actor.tell(Pause())
        elif row.state in _STAYS and row.jid is None:
            return
        elif row.next_attempt_at is not None and (
            row.state in {"banned", "conflict"} or (moved and row.state == "refreshing")
        ):
            seconds = max(0.0, (row.next_attempt_at - datetime.now(UTC)).total_seconds())
            self._refresh_in(supervised, seconds, Refresh(row.reason_code, row.reason, 1))
        elif moved:
            self._opening.add(row.id)
            self._refresh_in(supervised, 0.0, Refresh("moved", POLICIES["moved"].words, 1))
        elif self._restarted:
            self._refresh_in(supervised, 0.0, Refresh("shard_died", POLICIES["shard_died"].words, 1))
        else:
            self._refresh_in(supervised, 0.0, Refresh("start", "The fleet starts.", 1))

    def _refresh_in(self, supervised: Supervised, seconds: float, order: Refresh) -> None:
        """Give an order after ``seconds``, once it is the device's turn within the fleet's budget."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await self._services.gate.turn(supervised.actor.id, again=order.attempt > 1)
            supervised.pending = supervised.order = None
            supervised.actor.tell(order)

        supervised.order, supervised.due = order, time.monotonic() + seconds
        supervised.pending = asyncio.ensure_future(wait())

    def _ended(self, device_id: int, task: asyncio.Task[None]) -> None:
        """Start a device actor again after it failed; its neighbours notice nothing."""
        supervised = self._supervised.get(device_id)
        if task.cancelled() or self._leaving or supervised is None or supervised.task is not task:
            return
        if supervised.leaving or task.exception() is None:
            return
        logger().error(
            "A device actor failed; it is restarted", device=supervised.actor.name, exc_info=task.exception()
        )
        asyncio.ensure_future(self._restart(device_id, supervised))  # noqa: RUF006 - it ends by itself

    async def _restart(self, device_id: int, failed: Supervised) -> None:
        self.forget(device_id)
        await failed.actor.leave(self._services.settings.drain_seconds)
        row = await self._services.store(devices.by_id, device_id)
        if self._supervised.get(device_id) is not failed or failed.leaving:
            return  # it was let go meanwhile
        if row is None or self._leaving:
            self._supervised.pop(device_id, None)
            return
        self._start(row, failed.lives + 1, failed)
        self.decide(device_id, "crashed")

    def remove(self, row: Device) -> None:
        """Log a removed device out at the server, then let it go, whatever it is at just now.

        Args:
            row: what it was before its removal.
        """
        if row.id not in self._removals:
            self._early.pop(row.id, None)
            task = self._removals[row.id] = asyncio.ensure_future(self._log_out(row))
            task.add_done_callback(lambda ended: self._removed(row.id, ended))

    def _removed(self, device_id: int, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().error("A removed device could not be logged out", id=device_id, exc_info=error)
        self._removals.pop(device_id, None)
        self._on_news()

    async def _log_out(self, row: Device) -> None:
        supervised = self._supervised.get(row.id)
        if supervised is not None:
            supervised.actor.tell(Unlink())
            unlinked = asyncio.ensure_future(supervised.actor.unlinked.wait())
            # One that is being handed over may end before it comes to that.
            await asyncio.wait(
                {unlinked, supervised.task}, timeout=_REMOVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            unlinked.cancel()
            await self._let_go(row.id)
            if supervised.actor.unlinked.is_set():
                return
        if (departure := self._departures.get(row.id)) is not None:
            await asyncio.wait({departure})
        if row.jid is not None and not self._leaving:
            await self._log_out_anew(row, row.jid)

    async def _log_out_anew(self, row: Device, jid: str) -> None:
        """Log a device out that nobody hosts any more, or not yet: by an actor that does nothing else."""
        actor = WhatsAppDevice(self._services, self, row, f"{self._services.owner}/{row.id}.removal")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REMOVAL_SECONDS + 2 * self._services.settings.connect_seconds):
                await actor.unlink()
        await actor.leave(0.0)
        await self._services.library.gone(jid, _CLOSING_SECONDS)
        await self._services.gate.hang_up(row.id)

    async def _let_go(self, device_id: int) -> None:
        """Close a device's connection for certain; until then it is hosted here."""
        self.forget(device_id)
        supervised = self._supervised.get(device_id)
        if supervised is None:
            return
        supervised.leaving = True
        jid = supervised.actor.jid
        await supervised.actor.leave(self._services.settings.drain_seconds)
        supervised.task.cancel()
        await asyncio.wait({supervised.task}, timeout=_CLOSING_SECONDS if not self._leaving else 0.0)
        if jid is not None and not self._leaving:
            # An opening that hangs goes on for a while after it was given up.
            await self._services.library.gone(jid, _CLOSING_SECONDS)
        if not self._leaving:
            await self._services.gate.hang_up(device_id)
        if self._supervised.get(device_id) is supervised:
            del self._supervised[device_id]
        self._opening.discard(device_id)
        self._on_news()


def _message_of(command: str, number: str | None, request: str) -> DeviceMessage:
    match command:
        case "refresh":
            return Refresh("operator", "The operator asked for it.", 1, request)
        case "resume":
            return Refresh("resumed", "The operator resumed it.", 1, request)
        case "pause":
            return Pause()
        case "pair":
            return Pair(number, request)
        case "check":
            return Check(number or "")
    raise ValueError(f"unknown device command {command!r}")
