"""WhatsAppShard: one process that hosts many device actors, so that a native crash costs one shard, not the fleet.

Its main thread is an ordinary Thespian actor: it takes messages and reports that it lives. A second thread runs the
asyncio loop with the devices; only that thread loads the WhatsApp library. Messages are handed over to the loop;
nothing needs to come back but the heartbeat, since whatever matters is a row. While devices move between shards the
loop asks for a heartbeat at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.child import SupervisedChild
from actors.messages import (
    ConnectShare,
    Heartbeat,
    HostDevices,
    StartChild,
    StopChild,
    TellDevice,
    Wear,
    WorkNoted,
    WorkWaiting,
)
from actors.whatsapp.dialing import DialGate
from actors.whatsapp.flight_recorder import FlightRecorder
from actors.whatsapp.services import DATABASE_THREADS, Services
from config.daemon import loopback_endpoint
from config.logging import logger
from storage.connection_cap import connection_past_pgbouncer, shard_connections
from storage.credentials import CredentialSeal
from storage.database import (
    WHATSMEOW_DATABASE,
    PooledConnections,
    ThroughPooler,
    database_url,
    direct_url,
    whatsmeow_url,
)
from storage.pgbouncer import RESERVED, pooled_connections
from storage.pooler import Pooler
from supervisors.devices import DeviceSupervisor
from supervisors.processes import memory_mb, open_descriptors, raise_descriptor_limit

if TYPE_CHECKING:
    from actors.whatsapp.library import ClientLibrary

#: The loop thread must show itself this often, or the shard stops its heartbeat and is replaced, in seconds.
_LOOP_SILENCE_SECONDS = 10.0
#: A shard is hinted that there is work no more often than every so many seconds.
_HINT_REST_SECONDS = 0.02
#: Threads for the library's blocking calls: one for each connected client, plus sends and probes under way.
_LIBRARY_THREADS = 512
#: So many new objects set the garbage collector to work. Hundreds of devices make many that stay: Python's own 700 has
#: it look at them again and again while a fleet starts.
_NEW_OBJECTS = 5000
#: How often descriptors and memory are looked at, in seconds.
_WEAR_SECONDS = 10.0


#: Connections to PostgreSQL that all clients of a shard share.
_STORE_CONNECTIONS = 1


@dataclass(frozen=True)
class WorkHinted:
    """A hint that is to be noted after a rest, and by whom it was given."""

    by: Any


class WhatsAppShard(SupervisedChild):
    """Hosts WhatsApp devices in one process."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._devices: DeviceSupervisor | None = None
        self._gate: DialGate | None = None
        self._loop_seen = time.monotonic()
        self._before_loop: list[Callable[[DeviceSupervisor], None]] = []
        self._latest_order: asyncio.Future[None] | None = None
        self._handover = threading.Lock()
        self._library: ClientLibrary | None = None
        self._born = time.monotonic()
        self._carried_out = -1
        self._wear: Wear | None = None
        self._wear_seen = 0.0
        self._stirred = (-1, -1)

    def begin(self) -> None:
        """Give the process a directory and an output of its own, then start the loop thread."""
        assert self.start is not None  # noqa: S101 - life begins with it
        _detach_output(self.home.logs / "library.log")
        directory = self.home.run / self.start.name
        directory.mkdir(mode=0o700, exist_ok=True)
        os.chdir(directory)
        raise_descriptor_limit()
        gc.set_threshold(_NEW_OBJECTS)
        self._stirred = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._stirred[0])
        threading.Thread(target=self._run_loop, name="devices", daemon=True).start()

    def is_well(self) -> bool:
        """Return whether the loop shows itself; until it runs, it has the time of a start."""
        patience = _LOOP_SILENCE_SECONDS if self._loop is not None else self.settings.child_start_seconds
        return time.monotonic() - self._loop_seen < patience

    def hosted(self) -> tuple[int, ...]:
        """Return the devices hosted here."""
        return self._devices.hosted() if self._devices is not None else ()

    def heartbeat(self, start: StartChild) -> Heartbeat:
        """Return what is reported: also what is hosted, by which order, and how worn this process is."""
        # In this order: what is hosted is then never older than the order that it follows.
        order = self._carried_out
        opening = self._devices.opening() if self._devices is not None else ()
        beat = super().heartbeat(start)
        return replace(beat, device_ids=self.hosted(), order=order, opening=opening, wear=self._worn())

    def _worn(self) -> Wear | None:
        if self._library is None:
            return None
        now = time.monotonic()
        if self._wear is None or now - self._wear_seen > _WEAR_SECONDS:
            self._wear_seen = now
            self._wear = Wear(0, open_descriptors(), memory_mb(), 0.0)
        return replace(self._wear, refreshes=self._library.wear.openings, seconds=now - self._born)

    def on_watch_message(self, _message: Any, _sender: Any) -> None:
        """Report at once: the loop thread has news."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._stirred[0], 4096):
                pass
        self.report_life()

    def _stir(self) -> None:
        """Have a heartbeat sent now; called in the loop thread, which must not send."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._stirred[1], b"!")

    def on_host_devices(self, message: HostDevices, _sender: Any) -> None:
        """Host these devices from now on."""
        self._in_loop(lambda devices: self._host_devices(devices, message))

    def _host_devices(self, devices: DeviceSupervisor, message: HostDevices) -> None:
        if self._gate is not None:
            self._gate.budget.per_second = message.connects_per_second

        async def host() -> None:
            await devices.host(message.device_ids, message.at_rest, moved=True)
            self._carried_out = message.order
            self._stir()

        self._in_turn(host)

    def on_tell_device(self, message: TellDevice, _sender: Any) -> None:
        """Hand an operator's command to its device."""

        async def tell(devices: DeviceSupervisor) -> None:
            if message.removed is not None:
                devices.remove(message.removed)
            else:
                devices.tell(message.device_id, message.command, message.number, message.request)

        # In turn: a device that was added a moment ago must be hosted before its first command comes.
        self._in_loop(lambda devices: self._in_turn(lambda: tell(devices)))

    def on_connect_share(self, message: ConnectShare, _sender: Any) -> None:
        """Connect as fast as this shard may from now on."""
        if self._gate is not None:
            self._gate.budget.per_second = message.per_second

    def on_work_waiting(self, message: WorkWaiting, sender: Any) -> None:
        """Note that there is work."""
        self._in_loop(lambda devices: devices.work_waits(message.device_ids))
        # The router gathers hints until this one is noted: a moment's rest here saves both most of the messages.
        self.wake_after(_HINT_REST_SECONDS, WorkHinted(sender))

    def on_wakeup(self, payload: Any) -> None:
        """Report life, or tell the router that its hint is noted."""
        if isinstance(payload, WorkHinted):
            self.send(payload.by, WorkNoted())
        else:
            super().on_wakeup(payload)

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Drain the devices, then end the process."""
        if self._loop is None:
            os._exit(0)
        self._in_loop(lambda devices: _forget_task(self._leave(devices)))

    def _in_loop(self, work: Callable[[DeviceSupervisor], None]) -> None:
        """Do something in the loop thread; what comes before the loop runs is done as soon as it does."""
        with self._handover:
            if self._loop is None or self._devices is None:
                self._before_loop.append(work)
                return
        self._loop.call_soon_threadsafe(work, self._devices)

    def _in_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something when everything that was ordered before it is done."""

        async def wait_and_work(earlier: asyncio.Future[None] | None) -> None:
            if earlier is not None:
                await asyncio.wait({earlier})
            await work()

        self._latest_order = asyncio.ensure_future(wait_and_work(self._latest_order))

    async def _leave(self, devices: DeviceSupervisor) -> None:
        await devices.leave()
        os._exit(0)

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._host())
        except BaseException:  # noqa: BLE001 - whatever it is, the process must end so that its parent acts
            logger().exception("The shard's loop failed; the process ends")
        os._exit(1)

    async def _host(self) -> None:
        assert self.start is not None  # noqa: S101 - the thread is started by the start message
        from actors.whatsapp.library import ClientLibrary  # noqa: PLC0415 - loads the Go library, only here

        endpoint = loopback_endpoint(self.home)
        upstream = endpoint.proxy if endpoint else _system_proxy()
        gate = DialGate(upstream, self.start.connects_per_second, lambda: len(self.hosted()))
        await gate.start()
        self._gate = gate
        store_url = await self._store()
        self._library = ClientLibrary(
            store_url=store_url,
            pooled=isinstance(store_url, ThroughPooler),
            default_proxy=endpoint.proxy if endpoint else None,
            noise_root=bytes.fromhex(endpoint.noise_root) if endpoint else None,
            threads=_LIBRARY_THREADS,
        )
        services = Services(
            home=self.home,
            settings=self.settings,
            owner=self.start.owner,
            database=self._database(),
            sessions=PooledConnections(store_url, 1),
            seal=CredentialSeal(self.home.credentials_key),
            loopback=endpoint is not None,
            library=self._library,
            gate=gate,
            recorder=FlightRecorder(Path.cwd()),
        )
        devices = DeviceSupervisor(services, restarted=self.start.restarted, on_news=self._stir)
        await devices.host(self.start.device_ids)
        self._carried_out = self.start.order
        with self._handover:
            self._devices, self._loop = devices, asyncio.get_running_loop()
        for work in self._before_loop:
            work(devices)
        watch = asyncio.ensure_future(devices.run())
        # A shard that leaves looks at no lane any more, but its sends under way must finish; then it ends itself.
        while not watch.done() or _UNDER_WAY:
            self._loop_seen = time.monotonic()
            await asyncio.sleep(0.5)
        await watch

    def _database(self) -> PooledConnections:
        """Return this shard's connections to Salamander's tables: past PgBouncer, as far as the server has room."""
        url, direct = database_url(self.home, self.settings), direct_url(self.home, self.settings)
        cap, shards = self.settings.database_connections, self.settings.max_shards
        if self.settings.database_url is not None:
            return PooledConnections(direct, DATABASE_THREADS)
        if not isinstance(url, ThroughPooler):
            return PooledConnections(direct, shard_connections(cap, shards))
        if connection_past_pgbouncer(cap, shards, pooled=pooled_connections(cap), others=RESERVED):
            return PooledConnections(direct, 1)
        return PooledConnections(url, DATABASE_THREADS)

    async def _store(self) -> str:
        """Return where the library finds its store: before the embedded server, PgBouncer or a pooler of our own."""
        url = whatsmeow_url(self.home, self.settings)
        if self.settings.whatsmeow_database_url is not None or isinstance(url, ThroughPooler):
            return url
        pooler = Pooler(url, _STORE_CONNECTIONS)
        await pooler.start()
        return ThroughPooler(pooler.url(WHATSMEOW_DATABASE))


def _forget_task(work: Any) -> None:
    """Start a coroutine whose end nobody awaits; its errors end the loop's process through its own handling."""
    task = asyncio.ensure_future(work)
    _UNDER_WAY.add(task)
    task.add_done_callback(_UNDER_WAY.discard)


_UNDER_WAY: set[asyncio.Future[Any]] = set()


def _system_proxy() -> str | None:
    """Return the proxy that the environment names for WhatsApp, as the library itself would have found it."""
    host = "web.whatsapp.com"
    return None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https")


def _detach_output(path: Any) -> None:
    """Send the process's standard output and error, which the Go library prints to, into a file of their own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
