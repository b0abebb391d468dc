"""Connections that obey one deadline for everything, and are never reused when they may be half closed.

The time-outs of requests count from one received byte to the next, so a server that drips a byte a second
holds a thread for ever. Here each receive waits at most for what is left of the attempt's time.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from actors.public_addresses import HostUnknown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from urllib3 import PoolManager, ProxyManager

    from actors.public_addresses import AddressRule

#: An idle connection older than this is replaced, in seconds. Servers close theirs after 5 s or more (Node.js
#: and Apache: 5), and a request that meets the closing half-way ends in doubt.
IDLE_SECONDS = 4.0
#: Hosts whose connections are kept at once; self-hosted platforms mean one host an account.
_HOSTS = 64


class _Attempt(threading.local):
    """The attempt that this thread makes: when it must be over, by the monotonic clock (None: no attempt).

    ``rule`` says where its connections may lead; None: wherever the name does. It holds for those that are opened in
    it, so an adapter serves either attempts that have one or such that have none.
    """

    deadline: float | None = None
    rule: AddressRule | None = None


attempt = _Attempt()


def _allow_what_is_left(connection: socket.socket) -> None:
    """Let the next operation on ``connection`` take no longer than the attempt may."""
    if attempt.deadline is None:
        return
    left = attempt.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the attempt's time is over")
    connection.settimeout(left)


class _TimedSocket(socket.socket):
    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        _allow_what_is_left(self)
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        _allow_what_is_left(self)
        return super().recv_into(buffer, nbytes, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        _allow_what_is_left(self)
        super().sendall(data, flags)


class _TimedTlsSocket(ssl.SSLSocket):
    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        _allow_what_is_left(self)
        return super().recv(buflen, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        _allow_what_is_left(self)
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        _allow_what_is_left(self)
        return super().send(data, flags)


class _Timed(HTTPConnection):
    """A connection over a timed socket that counts as dropped once it has been idle for long.

    It sends a request's head and body at once: each call of the system costs a thread its turn, and there are many.
    """

    _used = 0.0
    #: What is to be sent, while a request is put together.
    _held: bytearray | None = None

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn() if attempt.rule is None else self._connect_by(attempt.rule)
        patience = plain.gettimeout()
        timed = _TimedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        timed.settimeout(patience)
        return timed

    def _connect_by(self, rule: AddressRule) -> socket.socket:
        """Connect to an address that was checked; the name stays that of the certificate and the request.

        Raises:
            AddressRefused: the host has an address that the rule does not allow.
        """
        name = self._dns_host
        try:
            addresses = rule.resolve(name)
        except HostUnknown:
            raise NewConnectionError(self, "the host has no address") from None
        for address in addresses:
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError):
                over = attempt.deadline is not None and time.monotonic() >= attempt.deadline
                if over or address == addresses[-1]:
                    raise
            finally:
                self._dns_host = name
        raise NewConnectionError(self, "the host has no address")

    def request(self, *arguments: Any, **named: Any) -> None:
        self._used = time.monotonic()
        self._held = bytearray()
        try:
            super().request(*arguments, **named)
            whole = bytes(self._held)
        finally:
            self._held = None
        self.send(whole)

    def send(self, data: Any) -> None:
        """Send ``data``, or keep it until its request is whole."""
        if self._held is None:
            super().send(data)
        else:
            self._held += data

    @property
    def is_connected(self) -> bool:
        # The pool asks this before it reuses a connection, and opens a new one upon False.
        return super().is_connected and time.monotonic() - self._used < IDLE_SECONDS


class TunnelRefusedError(NewConnectionError):
    """The proxy opened no tunnel, so nothing reached the platform."""


class _TimedTls(_Timed, HTTPSConnection):
    """The same under TLS, whose socket class comes with the adapter's context."""

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except (OSError, HTTPException):
            raise TunnelRefusedError(self, "no tunnel") from None


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Timed


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TimedTls


class OneAttemptAdapter(HTTPAdapter):
    """An adapter of requests that tries once, over connections that obey ``attempt.deadline``."""

    def __init__(self, connections: int) -> None:
        self._context = create_urllib3_context()
        self._context.sslsocket_class = _TimedTlsSocket
        self._making_manager = threading.Lock()
        super().__init__(pool_connections=_HOSTS, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **named: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **named)
        _use_timed_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> ProxyManager:
        """Return the pools of connections through ``proxy``."""
        # Under a lock: another thread must not find a new manager before its pools are the timed ones.
        with self._making_manager:
            manager: ProxyManager = super().proxy_manager_for(proxy, ssl_context=self._context, **named)
            _use_timed_pools(manager)
        return manager


def _use_timed_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
