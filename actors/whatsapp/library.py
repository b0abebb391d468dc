"""The WhatsApp library in one process: opens and closes clients so that they cannot hurt each other.

What the library does not survive is kept from it here: two clients opened or closed at the same moment, a stored
session that is not there, one session used twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.whatsapp import session
from actors.whatsapp.addresses import parse_address
from actors.whatsapp.binding import Binding
from actors.whatsapp.client import WhatsAppClient
from actors.whatsapp.connection import Connection
from actors.whatsapp.events import ClientError, ClientEvent
from actors.whatsapp.loopback import is_loopback, replace_noise_root
from config.errors import StorageUnavailable
from storage.database import SingleConnection, ThroughPooler

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long a connect keeps others from starting, when nothing tells that it is through with the library's registry.
#: That takes 20 ms, on an overloaded machine 64; it is told, normally, as soon as the connection stands.
_SETTLE_SECONDS = 1.0
#: How long the session store may take to answer, in seconds; nothing else is opened meanwhile.
_STORE_SECONDS = 5.0
#: How long a failed opening waits for its client's end before it reports; the end itself is never skipped.
_RELEASE_SECONDS = 2.0
_PROXY_SCHEMES = frozenset({"http", "https", "socks5"})


@dataclass(frozen=True)
class Wear:
    """How worn a process is. Each opening leaks two descriptors and two connections' worth of memory in the library.

    Attributes:
        openings: clients opened so far.
        abandoned: threads the library will never give back (pairings that did not succeed).
    """

    openings: int
    abandoned: int


class ClientLibrary:
    """The clients of this process. Make one, inside the event loop that they will live on."""

    def __init__(
        self,
        *,
        store_url: str,
        default_proxy: str | None,
        noise_root: bytes | None,
        threads: int,
        pooled: bool = False,
    ) -> None:
        """Load the library (0.5 s) and prepare the process for it.

        Args:
            store_url: whatsmeow's database as a libpq URL.
            default_proxy: the proxy of devices without their own; None connects directly.
            noise_root: the simulator's Noise root, 32 bytes; None for the real WhatsApp. With it, every proxy must be
                on the loopback interface.
            threads: the size of the event loop's executor. Clients do not use it for what can block for long.
            pooled: whether ``store_url`` leads through PgBouncer.

        Raises:
            ConfigurationInvalid: ``noise_root`` is given and ``default_proxy`` is not on the loopback interface.
        """
        self._store_url = store_url
        self._library_url = session.store_url_for_library(store_url, pooled=pooled)
        self._default_proxy = default_proxy
        self._simulated = noise_root is not None
        self._binding = Binding()
        if noise_root is not None:
            replace_noise_root(noise_root, proxy=default_proxy)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads, "worker"))
        self._connections: set[Connection] = set()
        self._store = SingleConnection(ThroughPooler(store_url) if pooled else store_url, patience=_STORE_SECONDS)
        self._remains: list[object] = []
        self._openings = 0
        self._abandoned = 0
        self._closed = False

    @property
    def wear(self) -> Wear:
        """What this process has lost to the library so far."""
        return Wear(self._openings, self._abandoned)

    async def open(
        self,
        *,
        jid: str | None,
        proxy: str | None,
        on_event: Callable[[ClientEvent], None],
        on_secret_not_stored: Callable[[str], None],
        connect_seconds: float,
    ) -> WhatsAppClient:
        """Connect a client with its stored session, or a new one to be paired.

        Clients are opened one after another, but none waits for another's network for more than about a second.

        Args:
            jid: the companion whose session is resumed, as ``60123456789:1@s.whatsapp.net``; None for a new device,
                which is returned as soon as its first QR text has come.
            proxy: the device's own proxy, as a URL (http, https, socks5).
            on_event: receives the client's events, on the event loop, from the beginning; among them the one that
                made the opening fail.
            on_secret_not_stored: receives the ID of a message that goes out without its secret stored, before it
                goes out. It is called in a thread of the library, and must have written the ID down when it returns.
            connect_seconds: how long the connecting may take, from its own beginning.

        Raises:
            ClientError: it failed, and nothing of it is left; ``code`` is one of store_missing, store_unavailable,
                connect_refused, connect_timeout, certificate_refused, proxy_error, server_error, logged_out, replaced,
                banned, outdated, pairing_ended, library_stopped, already_open, closed.
        """
        if jid is not None:
            self._require_companion(jid)
        chosen = self._chosen_proxy(proxy)
        if jid is not None:
            await self._others_gone(jid, connect_seconds)
        self._require_open()
        connection = Connection(
            self._binding,
            store_url=self._library_url,
            jid=jid,
            proxy=chosen,
            own_proxy=proxy is not None,
            on_event=on_event,
            on_secret_not_stored=on_secret_not_stored,
            on_closed=self._forget,
        )
        self._connections.add(connection)
        try:
            async with self._binding.gate.changing():
                self._require_open()
                if jid is not None:
                    connection.contacts = await self._binding.threads.run(self._require_stored, jid)
                started = time.monotonic()
                self._openings += 1
                await connection.begin()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(connection.settled.wait(), _SETTLE_SECONDS)
            await connection.opened(max(0.0, connect_seconds - (time.monotonic() - started)))
        except BaseException:
            # A dial that hangs cannot be broken off. Until it ends, the session stays taken.
            await asyncio.wait({asyncio.ensure_future(connection.close())}, timeout=_RELEASE_SECONDS)
            raise
        return WhatsAppClient(self._binding, connection)

    async def gone(self, jid: str, seconds: float) -> None:
        """Wait until no client of this companion is left, an opening that was given up included; at most so long."""
        closing = {asyncio.ensure_future(other.close()) for other in self._connections if other.jid == jid}
        if closing:
            await asyncio.wait(closing, timeout=seconds)

    async def close(self) -> None:
        """Close every client, and open no more."""
        self._closed = True
        await asyncio.gather(*(connection.close() for connection in set(self._connections)))
        self._store.close()

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._abandoned += connection.abandoned
        if connection.remains is not None:
            self._remains.append(connection.remains)

    async def _others_gone(self, jid: str, seconds: float) -> None:
        """Wait until an earlier client of the same session has ended: two would replace each other."""
        for other in [other for other in self._connections if other.jid == jid]:
            if not other.closing:
                raise ClientError("already_open", f"A client of {jid} is already open in this process.")
            try:
                await asyncio.wait_for(other.close(), seconds)
            except TimeoutError:
                sentence = f"The earlier client of {jid} has not ended yet."
                raise ClientError("connect_timeout", sentence) from None

    def _require_open(self) -> None:
        if self._closed:
            raise ClientError("closed", "This process opens no more clients.")

    def _require_companion(self, jid: str) -> None:
        with contextlib.suppress(ValueError):
            if parse_address(jid).is_companion:
                return
        raise ClientError("store_missing", f"{jid} does not name a companion, so no session can be stored for it.")

    def _require_stored(self, jid: str) -> int:
        """Look the session up: the library ends the whole process when it is not there. Runs in a thread.

        Returns:
            How many contacts' Signal sessions it has.

        Whoever opens waits for this, so it must not take long: a store that hangs fails this opening alone.
        """
        try:
            with self._store.statements() as connection:
                stored = session.stored_session(connection, jid)
        except StorageUnavailable as error:
            raise ClientError("store_unavailable", f"The session store did not answer: {error.sentence}") from error
        if stored is None:
            raise ClientError("store_missing", f"The store holds no session for {jid}.")
        return stored.contacts

    def _chosen_proxy(self, own: str | None) -> str | None:
        chosen = own or self._default_proxy
        if chosen is None:
            return None
        try:
            parts = urlsplit(chosen)
            usable = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ClientError("proxy_error", "The proxy is not a URL like http://host:port or socks5://host:port.")
        if self._simulated and not is_loopback(chosen):
            raise ClientError("proxy_error", "With the simulator, a proxy must be on 127.0.0.1.")
        return chosen
