"""The only importer of neonize: loads it, keeps its side effects in, and corrects how it calls into Go."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from actors.whatsapp.gate import RegistryGate
from actors.whatsapp.threads import DaemonThreads
from config.logging import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

#: The lowest level of whatsmeow's own log lines that reach us. INFO holds a few lines a connection, some of them
#: the only evidence of what happened; DEBUG would hold every stanza.
_LIBRARY_LEVEL = logging.INFO
#: The events a client subscribes to: the names of neonize's classes without their ending.
EVENTS = (
    "PairStatus",
    "Connected",
    "KeepAliveTimeout",
    "KeepAliveRestored",
    "LoggedOut",
    "StreamReplaced",
    "TemporaryBan",
    "ConnectFailure",
    "ClientOutdated",
    "StreamError",
    "Disconnected",
    "Message",
    "Receipt",
)


class _QuietHandler(logging.Handler):
    """Passes neonize's Python-side log lines on to our log, where they are for debugging."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        logger().debug("The WhatsApp library says", text=record.getMessage(), source=record.name)


class Binding:
    """neonize in this process, ready for use on the running event loop. Make one only.

    Attributes:
        aioze: neonize's module of asynchronous clients.
        messages: the protobuf module of WhatsApp's messages.
        types: the protobuf module of neonize's own values.
        gate: what calls into the library pass through.
        threads: where they run.
    """

    def __init__(self) -> None:
        self.threads = DaemonThreads("whatsapp")
        self.gate = RegistryGate(self.threads)
        with _root_logger_kept():
            # The wheel that brings libmagic must come first: neonize imports python-magic, which looks for it.
            import pylibmagic  # noqa: F401, PLC0415
            from neonize import _binder  # noqa: PLC0415
            from neonize.aioze import client, events  # noqa: PLC0415
            from neonize.proto import Neonize_pb2 as types  # noqa: PLC0415
            from neonize.proto.waCompanionReg import WAWebProtobufsCompanionReg_pb2 as registration  # noqa: PLC0415
            from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as messages  # noqa: PLC0415
            from neonize.utils import enum  # noqa: PLC0415
        _reap_children()
        self.aioze = client
        self.messages = messages
        self.types = types
        self._enum = enum
        self._events = events
        self._go = _binder.gocode
        self._binder = _binder
        # The device's name and kind, as the phone lists it under "Linked devices".
        self.device_properties = registration.DeviceProps(
            os="Salamander", platformType=registration.DeviceProps.PlatformType.DESKTOP
        )
        # Event callbacks go to the loop that connected first; say which, before any does.
        events.event_global_loop = asyncio.get_running_loop()
        client.async_gocode = _GoCalls(self._go, self.gate, self.threads)
        # neonize declares that Stop returns a string to be freed; it returns nothing, so what is freed is chance.
        self._stop = self._go["Stop"]
        self._stop.argtypes, self._stop.restype = [ctypes.c_char_p], None
        self._disconnect = self._go["Disconnect"]
        self._disconnect.argtypes, self._disconnect.restype = [ctypes.c_char_p], None
        _raise_descriptor_limit()

    def new_client(self, store_url: str, companion: Any, identity: bytes) -> Any:
        """Return an unconnected neonize client.

        Args:
            store_url: the session store, as whatsmeow's driver wants it.
            companion: the stored session to resume, or None for a new device.
            identity: its name on the Go side; used once in a process.
        """
        client = self.aioze.NewAClient(
            store_url,
            jid=companion and self.jid(companion),
            props=self.device_properties,
            uuid="unused",
            new_device=companion is None,
        )
        # neonize names the client after the phone number. Two companions of one number would share a name, and the
        # finalizer of a forgotten client would stop the one that took its place.
        client.uuid = identity
        client._stop_finalizer.detach()
        return client

    async def connect(self, client: Any, log: Callable[[int, int], None], proxy: str | None) -> asyncio.Task[None]:
        """Begin to connect; the task ends when the client is stopped or the first connect fails.

        Args:
            client: from :meth:`new_client`.
            log: receives each of the library's log lines synchronously, in any thread: (address, size) of a
                protobuf ``LogEntry``. It may be called for as long as the process lives.
            proxy: the proxy's URL.
        """
        settings = self._binder.ProxySettings(proxy_address=proxy) if proxy else None
        # connect() looks this name up in its module and never awaits before it has; so nobody else sees ours.
        usual, self.aioze.log_whatsmeow = self.aioze.log_whatsmeow, log
        try:
            task: asyncio.Task[None] = await client.connect(settings)
        finally:
            self.aioze.log_whatsmeow = usual
        return task

    def log_line(self, address: int, size: int) -> tuple[str, str]:
        """Return (level, text) of a log entry (see :meth:`connect`)."""
        entry = self.types.LogEntry.FromString(ctypes.string_at(address, size))
        return entry.Level, entry.Message

    def text_at(self, address: int) -> str:
        """Return the C string at ``address``."""
        return ctypes.string_at(address).decode(errors="replace")

    async def disconnect(self, identity: bytes) -> None:
        """Close a client's socket for good. Waits for a connect under way: up to 10 s. Unknown ones are ignored."""
        await self.gate.call(self._disconnect, identity)

    async def stop(self, identity: bytes) -> None:
        """Remove a client from the Go side, whose ``Neonize()`` then returns. Hold the gate's ``changing()``."""
        await self.threads.run(self._stop, identity)

    def event_class(self, name: str) -> Any:
        """Return neonize's class for one of :data:`EVENTS`."""
        return getattr(self._events, f"{name}Ev")

    def jid(self, address: Any) -> Any:
        """Return neonize's message for an :class:`~actors.whatsapp.addresses.Address`."""
        return self.types.JID(
            User=address.user,
            Server=address.server,
            Device=address.device,
            RawAgent=0,
            Integrator=0,
            IsEmpty=False,
        )

    def media_type(self, kind: str) -> Any:
        """Return neonize's name for a kind of media (image, video, audio, document)."""
        return self._enum.MediaType[f"Media{kind.title()}"]

    async def pair_phone(self, client: Any, number: str) -> str:
        """Ask for a pairing code. WhatsApp accepts only common browsers and systems as a name here."""
        code: str = await client.PairPhone(
            number, True, client_name=self._enum.ClientName.LINUX, client_type=self._enum.ClientType.CHROME
        )
        return code

    def migrate(self, store_url: str) -> str:
        """Create or update whatsmeow's tables; return the library's error, empty when it went well.

        ``ClientFactory.get_all_devices_from_db`` does the same, but stumbles over its own answer when it is an
        error or when somebody's name holds a comma.
        """
        callback = self._binder.func_callback_bytes2(lambda _address, _size: None)
        answer: str = self._go.GetAllDevices(store_url.encode(), callback).decode(errors="replace")
        return answer.removeprefix("error: ") if answer.startswith("error: ") else ""


class _GoCalls:
    """Stands in for neonize's own dispatcher of calls into Go, which uses the loop's executor for all of them."""

    def __init__(self, go: Any, gate: RegistryGate, threads: DaemonThreads) -> None:
        self._go = go
        self._gate = gate
        self._threads = threads

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        function = getattr(self._go, name)
        # Neonize() changes the registry: whoever connects holds the gate.
        return partial(self._threads.run if name == "Neonize" else self._gate.call, function)


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what an import does to the root logger (neonize gives it a handler and the level INFO)."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for name in ("neonize", "whatsmeow", "Whatsmeow"):
        library = logging.getLogger(name)
        library.handlers[:] = [_QuietHandler()]
        library.propagate = False
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        # neonize reads the level of whatsmeow's log lines off this logger.
        logging.getLogger("neonize.utils.log").setLevel(_LIBRARY_LEVEL)


def _reap_children() -> None:
    """Reap the shells that neonize asks for the system's name while it is imported, and never waits for."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: each client holds three, and leaks two at each connect."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
