"""A pooler inside one process: any number of local clients share a few connections to PostgreSQL.

The WhatsApp library keeps connections of its own for each client, up to two idle and many at once, and never closes
them. For thousands of clients PostgreSQL would spend more time on making processes than on queries. Here the library
connects to us instead, over loopback and with a secret; each of its transactions borrows one of a few connections
(what PgBouncer calls transaction mode). So its connections cost a descriptor, and PostgreSQL's are bounded.

Clients must not rely on a session: no prepared statements with names, no settings, no LISTEN. whatsmeow with
``binary_parameters=yes`` does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from psycopg import pq

from config.logging import logger
from storage.pooler_protocol import (
    GSS_REQUEST,
    IDLE,
    SSL_REQUEST,
    VERSION_3,
    Messages,
    NotTheProtocol,
    ask_password,
    refusal,
    take_password,
    take_startup,
    welcome,
)

#: Parameters that clients are told, as the server told them.
_PARAMETERS = (
    "server_version",
    "client_encoding",
    "standard_conforming_strings",
    "integer_datetimes",
    "TimeZone",
    "DateStyle",
)
#: What every connection to the server is set to: what Go's driver would ask for, and that a commit is on the disk.
_OPTIONS = (
    "-c client_encoding=UTF8 -c datestyle=ISO,MDY -c extra_float_digits=2 -c synchronous_commit=on"
    " -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
)
#: How long a connection to the server may take, and how long an unused one is kept, in seconds.
_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30.0
#: Connections beyond the limit, for clients that lost patience, at most.
_MOST_ADDITIONAL = 4
_USER = "store"


class Pooler:
    """Lets the clients of this process share at most ``limit`` connections to the server at ``url``.

    Args:
        url: the server's libpq URL. Its connection must not be encrypted by libpq: a unix socket, or loopback.
        limit: how many connections are used, ordinarily.
        patience: how long a client waits before one more is opened, in seconds: clients in open transactions that
            need a second connection must not wait for each other.
    """

    def __init__(self, url: str, limit: int, *, patience: float = 3.0) -> None:
        self._url = url
        self._limit = limit
        self._patience = patience
        self._secret = secrets.token_hex(16)
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._idle: list[_Server] = []
        self._servers: set[_Server] = set()
        self._opening = 0
        self._waiting: deque[_Client] = deque()
        self._welcome = b""
        self._first_opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen on a free loopback port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", 0, backlog=1024)
        self._tidy()

    async def stop(self) -> None:
        """Close everything."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self._server is not None:
            self._server.close()
        for each in (*self._clients, *self._servers):
            each.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, database: str) -> str:
        """Return the URL under which clients of this process reach the server (the database is the server's)."""
        assert self._server is not None  # noqa: S101 - started before anybody asks
        port = self._server.sockets[0].getsockname()[1]
        return f"postgres://{_USER}:{self._secret}@127.0.0.1:{port}/{quote(database)}?sslmode=disable"

    @property
    def connections(self) -> int:
        """How many connections to the server there are."""
        return len(self._servers)

    # --- what clients ask --------------------------------------------------------------------------------

    def admits(self, password: bytes) -> bool:
        """Return whether a client knows the secret."""
        return hmac.compare_digest(password, self._secret.encode())

    def came(self, client: _Client) -> None:
        """Note a client."""
        self._clients.add(client)

    def left(self, client: _Client) -> None:
        """Forget a client; a connection that it held in the middle of something is closed."""
        self._clients.discard(client)
        with contextlib.suppress(ValueError):
            self._waiting.remove(client)
        if client.server is not None:
            client.server.client = None
            client.server.close()
            client.server = None

    async def welcome(self) -> bytes:
        """Return what a client is told when it is let in.

        Raises:
            OSError: the server cannot be reached.
        """
        async with self._first_opening:
            if not self._welcome:
                self._release(await self._open())
        return self._welcome

    def wants(self, client: _Client) -> None:
        """Lend a connection to a client, now or when one is free."""
        client.waits_since = time.monotonic()
        if self._idle:
            self._lend(self._idle.pop(), client)
            return
        self._waiting.append(client)
        if len(self._servers) + self._opening < self._limit:
            self._open_for_waiting()
        else:
            asyncio.get_running_loop().call_later(self._patience, self._lose_patience)

    def done(self, server: _Server) -> None:
        """Take a connection back whose client is in no transaction."""
        if server.client is not None:
            # Neither may stay held because the other could not take more.
            server.client.hold(False)
            server.hold(False)
            server.client.server = None
            server.client = None
        self._release(server)

    def lost(self, server: _Server) -> None:
        """Forget a connection that the server closed."""
        self._servers.discard(server)
        if server in self._idle:
            self._idle.remove(server)
        if server.client is not None:
            server.client.server = None
            server.client.close()
        if self._waiting and not self._idle and not self._opening:
            self._open_for_waiting()

    # --- connections to the server -----------------------------------------------------------------------

    def _lend(self, server: _Server, client: _Client) -> None:
        server.client, client.server = client, server
        client.flush()

    def _release(self, server: _Server) -> None:
        if server.closing:
            return
        while self._waiting:
            client = self._waiting.popleft()
            if not client.closing:
                self._lend(server, client)
                return
        server.unused_since = time.monotonic()
        self._idle.append(server)

    def _lose_patience(self) -> None:
        """Open one more connection when somebody has been waiting for too long."""
        # The clock of a timer is a little coarser than ours.
        if not self._waiting or time.monotonic() - self._waiting[0].waits_since < 0.9 * self._patience:
            return
        if len(self._servers) + self._opening < self._limit + _MOST_ADDITIONAL:
            logger().info("The session store is slow; one more connection is opened", connections=len(self._servers))
            self._open_for_waiting()

    def _open_for_waiting(self) -> None:
        async def open_one() -> None:
            try:
                server = await self._open()
            except OSError as error:
                self._refuse_waiting(str(error))
            else:
                self._release(server)

        task = asyncio.ensure_future(open_one())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> _Server:
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            # libpq does the authentication; afterwards the socket is ours.
            connection, raw = await loop.run_in_executor(None, _connect, self._url)
            try:
                _, server = await loop.create_connection(lambda: _Server(self, connection), sock=raw)
            except BaseException:
                raw.close()
                raise
        finally:
            self._opening -= 1
        self._welcome = welcome({name: connection.parameter_status(name.encode()).decode() for name in _PARAMETERS})
        self._servers.add(server)
        return server

    def _refuse_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for client in waiting:
            client.refuse(reason)

    def _tidy(self) -> None:
        """Close what has not been used for long."""
        long_ago = time.monotonic() - _IDLE_SECONDS
        for server in [each for each in self._idle if each.unused_since < long_ago]:
            self._idle.remove(server)
            server.close()
        self._tidying = asyncio.get_running_loop().call_later(_IDLE_SECONDS / 3, self._tidy)


def _connect(url: str) -> tuple[Any, socket.socket]:
    """Return an authenticated connection and a socket of it.

    Raises:
        ConnectionError: it could not be made; the sentence holds no secret.
    """
    conninfo = pq.Conninfo.parse(url.encode())
    given = {each.keyword: each.val for each in conninfo if each.val is not None}
    given |= {b"options": _OPTIONS.encode(), b"application_name": b"salamander store"}
    words = b" ".join(key + b"=" + _quoted(value) for key, value in given.items())
    # PGconn.connect() would hold the interpreter's lock for as long as the server hangs.
    connection = pq.PGconn.connect_start(words)
    deadline = time.monotonic() + _CONNECT_SECONDS
    while connection.status != pq.ConnStatus.BAD:
        step = connection.connect_poll()
        if step not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            break
        awaited = selectors.EVENT_READ if step == pq.PollingStatus.READING else selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector:
            selector.register(connection.socket, awaited)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise ConnectionError("it did not answer in time")
    if connection.status != pq.ConnStatus.OK:
        reason = connection.error_message.decode(errors="replace").strip().splitlines()
        raise ConnectionError(reason[-1] if reason else "no reason given")
    if connection.ssl_in_use:
        raise ConnectionError("its connection is encrypted, which only PgBouncer can share")
    raw = socket.socket(fileno=os.dup(connection.socket))
    raw.setblocking(False)
    return connection, raw


def _quoted(value: bytes) -> bytes:
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


class _Side(asyncio.Protocol):
    """One end that is read from while the other can be written to."""

    transport: asyncio.Transport | None = None

    @property
    def closing(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's
        self.transport = transport

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def hold(self, held: bool) -> None:
        """Stop reading, or go on: the other end cannot take more."""
        if self.transport is None or self.transport.is_closing():
            return
        if held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class _Server(_Side):
    """A connection to PostgreSQL."""

    def __init__(self, pooler: Pooler, connection: Any) -> None:
        self.client: _Client | None = None
        self.unused_since = 0.0
        self._pooler = pooler
        self._connection = connection
        self._messages = Messages()
        self._unanswered = 0

    def ask(self, data: bytes, questions: int) -> None:
        """Pass on what a client says."""
        self._unanswered += questions
        self.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            portion = self._messages.feed(data, from_client=False)
        except NotTheProtocol:
            self.close()
            return
        if self.client is not None:
            self.client.write(portion.data)
        self._unanswered -= portion.readies
        if portion.status == IDLE and self._unanswered == 0 and self.client is not None and not self.client.asking:
            self._pooler.done(self)

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.hold(True)

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.hold(False)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        with contextlib.suppress(Exception):
            self._connection.finish()
        self._pooler.lost(self)


class _Client(_Side):
    """A connection of the library's driver."""

    def __init__(self, pooler: Pooler) -> None:
        self.server: _Server | None = None
        self.waits_since = 0.0
        self._pooler = pooler
        self._messages = Messages()
        self._opening = bytearray()
        self._admit: Callable[[], None] | None = self._read_startup
        self._unsent: list[tuple[bytes, int]] = []
        self._task: asyncio.Future[None] | None = None
        #: Whether messages were passed on whose Sync has not come yet.
        self.asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pooler.came(self)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._task is not None:
            self._task.cancel()
        self._pooler.left(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._admit is not None:
                self._opening += data
                self._admit()
            else:
                self._pass_on(data)
        except NotTheProtocol:
            self.close()

    # --- being let in ------------------------------------------------------------------------------------

    def _read_startup(self) -> None:
        startup = take_startup(self._opening)
        if startup is None:
            return
        if startup.request in {SSL_REQUEST, GSS_REQUEST}:
            self.write(b"N")
            self._read_startup()
        elif startup.request == VERSION_3:
            self.write(ask_password())
            self._admit = self._read_password
        else:
            self.close()  # it wants a query cancelled; it will see its end

    def _read_password(self) -> None:
        password = take_password(self._opening)
        if password is None:
            return
        if not self._pooler.admits(password):
            self.write(refusal("28P01", "password authentication failed"))
            self.close()
            return
        self._admit = lambda: None  # what it says before it was welcomed waits
        self._task = asyncio.ensure_future(self._welcome())

    async def _welcome(self) -> None:
        try:
            greeting = await self._pooler.welcome()
        except OSError as error:
            self.refuse(str(error))
            return
        self.write(greeting)
        self._admit = None
        if self._opening:
            early, self._opening = bytes(self._opening), bytearray()
            self.data_received(early)

    def refuse(self, reason: str) -> None:
        """Tell that the server is away, and end."""
        self.write(refusal("08006", f"the session store cannot be reached: {reason}"))
        self.close()

    # --- asking ------------------------------------------------------------------------------------------

    def _pass_on(self, data: bytes) -> None:
        portion = self._messages.feed(data, from_client=True)
        if portion.data:
            self.asking = portion.open_ended
            if self.server is not None:
                self.server.ask(portion.data, portion.questions)
            else:
                self._unsent.append((portion.data, portion.questions))
                if len(self._unsent) == 1:
                    self._pooler.wants(self)
        if portion.farewell:
            self.close()

    def flush(self) -> None:
        """Pass on what waited for a connection."""
        unsent, self._unsent = self._unsent, []
        for data, questions in unsent:
            assert self.server is not None  # noqa: S101 - just lent
            self.server.ask(data, questions)

    def pause_writing(self) -> None:
        if self.server is not None:
            self.server.hold(True)

    def resume_writing(self) -> None:
        if self.server is not None:
            self.server.hold(False)
