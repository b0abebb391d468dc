"""The actor system: started by the watchdog, reached by clients, hardened against strangers and sudden death.

Thespian's multi-process TCP system with three promises added: every socket listens on one address only, a
frame is unpickled only when it was sealed with this installation's key (``transport``, ``frames``), and no
process outlives the one that started the system (``transport``, ``processes``). Deaths of actors are reported
reliably (``replication``).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from thespian.actors import ActorAddress, ActorSystem, ActorSystemException, ExternalContext
from thespian.system import utilis

from config.errors import ConfigurationInvalid, DaemonNotRunning, HomeNotUsable, NoAnswer, SalamanderError
from supervisors.frames import KEY_LENGTH
from supervisors.replication import FindName, NameFound
from supervisors.system_base import (
    ANSWER_SECONDS,
    AdminNotStartedError,
    ClientSystemBase,
    DaemonSystemBase,
)
from supervisors.transport import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.home import Home

#: Thespian's own diary (failed transmissions and the like) is kept under twice this size, in bytes.
_THESPIAN_LOG_BYTES = 256 * 1024


def start_actor_system(home: Home, bind_address: str, port: int) -> ActorSystem:
    """Start an actor system that lives no longer than this process. For the watchdog.

    The calling process becomes a subreaper; its main thread must make the call, because the kernel ties a
    process to the thread that forked it. Nothing is ever adopted: an Admin found on the port is an error.

    Args:
        home: whose key seals the frames, and whose log directory takes Thespian's complaints.
        bind_address: the one IPv4 address every socket is bound to.
        port: the Admin's; 0 takes a free one (see admin_port).

    Raises:
        ConfigurationInvalid: the address is not one of this machine's.
        HomeNotUsable: the key cannot be read.
        SalamanderError: the port is taken, or the Admin does not start.

    """
    network = _network(home, bind_address)
    with contextlib.closing(_reserve(bind_address, port)) as reservation:
        _keep_thespian_log(home)
        try:
            return _actor_system(DaemonSystemBase(network, reservation))
        except (AdminNotStartedError, ActorSystemException) as error:
            raise SalamanderError(
                f"The actor system did not start on {bind_address}:{reservation.getsockname()[1]}: {error}.",
                "Look at thespian.log in the home's logs directory, then start again.",
                code="actor_system_not_started",
            ) from error


def connect_actor_system(home: Home, bind_address: str, port: int) -> ActorSystem:
    """Reach the running actor system of ``home``. Never starts one. End with ``disconnect``.

    Raises:
        DaemonNotRunning: nothing listens there (or it is just stopping).
        NoAnswer: something listens but does not answer as this home's Admin would.

    """
    if not home.frame_key.exists():
        raise DaemonNotRunning(home.path)
    network = _network(home, bind_address)
    utilis.thesplog_control(baseLevel=logging.WARNING, useLogging=False, tmpFileMaxSize=0)
    try:
        return _actor_system(ClientSystemBase(network, port))
    except ConnectionRefusedError:
        raise DaemonNotRunning(home.path) from None
    except TimeoutError:
        raise NoAnswer(
            f"What listens on {bind_address}:{port} does not answer as the daemon on {home.path}.",
            "Look at: run.py status; then restart with run.py stop and run.py start.",
        ) from None


def disconnect(system: ActorSystem) -> None:
    """Close this process's sockets to the actor system, which lives on."""
    system._systemBase.transport.close()


def admin_pid(system: ActorSystem) -> int:
    """Return the Admin's process, of a system that start_actor_system returned."""
    return int(system._systemBase.admin_pid)


def admin_port(system: ActorSystem) -> int:
    """Return the port clients connect to."""
    return int(system._systemBase.adminAddr.addressDetails.sockname[1])


def lookup(system: ActorSystem, global_name: str, seconds: float = ANSWER_SECONDS) -> ActorAddress | None:
    """Return the address of the actor with ``global_name``, or None when there is none. Creates nothing.

    Raises:
        NoAnswer: the Admin did not answer in time.

    """
    answer = ask(system, system._systemBase.adminAddr, FindName(global_name), seconds)
    if not isinstance(answer, NameFound):
        raise NoAnswer("The actor system does not answer.", "Look at: run.py status")
    return answer.address


def ask(system: ActorSystem, address: ActorAddress, message: Any, seconds: float) -> Any | None:
    """Send ``message`` and return the answer, or None when none came in time (or the actor is dead).

    Each question has an endpoint of its own, so a late answer to an earlier one cannot be taken for this
    one's, and threads may ask at the same time.
    """
    with contextlib.closing(Endpoint(system)) as endpoint:
        return endpoint.ask(address, message, seconds)


class Endpoint:
    """A place of one's own to ask from, one question at a time. It stays connected to whom it asked.

    To connect anew for each question takes as long as everything else about it.
    """

    def __init__(self, system: ActorSystem) -> None:
        # ActorSystem.private() makes the same, but leaves its socket open when its block raises.
        self._context = ExternalContext(system._systemBase.external_clone())

    def ask(
        self, address: ActorAddress, message: Any, seconds: float, is_answer: Callable[[Any], bool] = lambda _: True
    ) -> Any | None:
        """Send ``message`` and return the first thing that comes and ``is_answer``, or None when none came in time."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ActorSystemException):
            answer = self._context.ask(address, message, timedelta(seconds=seconds))
            while answer is not None and not is_answer(answer):
                answer = self._context.listen(timedelta(seconds=max(0.0, deadline - time.monotonic())))
            return answer
        return None

    def close(self) -> None:
        """Close its sockets."""
        self._context.exit_clone()


def _actor_system(base: ClientSystemBase | DaemonSystemBase) -> ActorSystem:
    return ActorSystem(base, transientUnique=True)


def _network(home: Home, bind_address: str) -> Network:
    """Return the home's key and the address, both checked."""
    try:
        address = ipaddress.IPv4Address(bind_address)
    except ValueError:
        raise _bind_address_unusable(f"{bind_address} is no IPv4 address") from None
    if address.is_unspecified or address.is_multicast:
        raise _bind_address_unusable(f"{bind_address} is not the address of one interface")
    try:
        key = home.frame_key.read_bytes()
    except OSError as error:
        raise HomeNotUsable(home.path, f"frame.key: {error.strerror}") from error
    if len(key) != KEY_LENGTH:
        raise HomeNotUsable(home.path, f"frame.key does not hold {KEY_LENGTH} bytes")
    return Network(key, bind_address)


def _bind_address_unusable(reason: str) -> ConfigurationInvalid:
    return ConfigurationInvalid(
        f"The setting bind_address is not usable: {reason}.",
        "Use 127.0.0.1, or the address of a private network's interface.",
    )


def _reserve(bind_address: str, port: int) -> socket.socket:
    """Bind, without listening, the port the Admin will listen on.

    Meanwhile nobody else can take the port, but the Admin, whose socket also allows it, can.
    """
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reservation.bind((bind_address, port))
    except OSError as error:
        reservation.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _bind_address_unusable(f"no interface has the address {bind_address}") from None
        raise SalamanderError(
            f"Port {port} of {bind_address} cannot be used: {error.strerror}.",
            "Set admin_port to another, or to 0 for any free one.",
            code="port_taken",
        ) from None
    return reservation


def _keep_thespian_log(home: Home) -> None:
    """Let Thespian's diary be written to the home instead of the directory for temporary files."""
    utilis._thesplog_file = str(home.logs / "thespian.log")
    utilis._thesplog_old_file = str(home.logs / "thespian.log.old")
    utilis.thesplog_control(baseLevel=logging.WARNING, useLogging=False, tmpFileMaxSize=_THESPIAN_LOG_BYTES)
