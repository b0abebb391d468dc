"""Thespian's TCP transport, hardened: bound to one address, sealed frames, no stranger can stop an actor.

The transport is the first thing of ours that runs in each process of the actor system, right after the fork;
so this is also where such a process ties its life to its parent's.

Line references in words are to Thespian 4.0.1, ``system/transport/TCPTransport.py``.
"""

# ruff: noqa: N802, N803 - Thespian's names are overridden
from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import socket
import time
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import thespian.system.transport.TCPTransport as stock  # noqa: N813 - a module named like its class
from thespian.system.transport import SendStatus
from thespian.system.transport.IPBase import TCPv4ActorAddress, thisSystem
from thespian.system.transport.streamBuffer import ackDataErrPacket, ackPacket, toSendBuffer

from supervisors.frames import FrameBuffer, FrameSeal
from supervisors.processes import die_with_parent, name_process, process_is_alive, reset_fatal_signals

#: Connections that have not yet brought a frame of ours, at most; the oldest gives way. One of ours brings
#: its frame at once unless its sender is busy, so this is far above what a healthy system has.
MOST_STRANGERS = 128
#: Connections that may wait to be accepted: enough for all children of a supervisor that is busy.
_BACKLOG = 512
#: How long a new Admin waits until the process that started it has adopted it, in seconds.
_ADOPTION_SECONDS = 10.0
#: How long looking for a listener may take, in seconds.
_PROBE_SECONDS = 1.0
#: The instance number Thespian gives its logger process.
_LOGGER = -1


class BoundAddress(TCPv4ActorAddress):
    """An address that is listened on exactly where it says; Thespian would listen on every interface."""

    #: The address of this process's own sockets.
    bind_address: ClassVar[str] = "127.0.0.1"

    def __init__(
        self,
        initialIPAddr: str | None = None,
        initialIPPort: int | str = 0,
        external: Any = False,
    ) -> None:
        super().__init__(initialIPAddr or self.bind_address, int(initialIPPort), external)

    @property
    def bindArgs(self) -> tuple[Any]:
        """The arguments of ``bind``."""
        return (self.sockname,)


def install(key: bytes, bind_address: str) -> None:
    """Make every TCP transport of this process, and of those forked from it, use this key and address.

    Thespian finds these by name in its module, and makes plain transports of its own besides ours; replacing
    the names leaves no unauthenticated one. One process serves one installation at a time: the last.
    """
    seal = FrameSeal(key)
    stock.serializer = seal
    stock.ReceiveBuffer = functools.partial(FrameBuffer, seal)
    stock.ackMsg = toSendBuffer(ackPacket, seal.dumps)
    stock.ackDataErrMsg = toSendBuffer(ackDataErrPacket, seal.dumps)
    stock.LISTEN_DEPTH = _BACKLOG
    stock.TCPv4ActorAddress = BoundAddress
    BoundAddress.bind_address = bind_address
    thisSystem.add_local_addr(bind_address)


@dataclass
class AdminBirth:
    """What the process that starts an Admin hands on to it through the fork.

    Attributes:
        starter: its pid; the Admin dies with it. None where orphans cannot be adopted.
        starter_since: when it was started.
        report: a pipe; the Admin writes there that it listens, or why it cannot.
        reservation: the socket that holds the Admin's port until the Admin does.

    """

    starter: int | None
    starter_since: float | None
    report: int
    reservation: socket.socket

    #: Set while an Admin is being started.
    current: ClassVar[AdminBirth | None] = None

    def tie(self) -> None:
        """Wait until the starter is this process's parent, then die with it.

        Thespian forks its Admin twice. Until the process between has ended, it is the parent, and tying the
        Admin to it would kill the Admin.
        """
        if self.starter is None:
            return
        deadline = time.monotonic() + _ADOPTION_SECONDS
        while os.getppid() != self.starter:
            if time.monotonic() > deadline or not process_is_alive(self.starter, self.starter_since):
                os._exit(1)
            time.sleep(0.001)
        die_with_parent(self.starter)

    def tell(self, **report: Any) -> None:
        """Write to the starter, once."""
        with contextlib.suppress(OSError):
            os.write(self.report, json.dumps(report).encode())
        os.close(self.report)


#: This process's transports. A forked process finds its parent's here.
_open_transports: weakref.WeakSet[HardenedTransport] = weakref.WeakSet()


def _begin_process(endpoint: Any) -> AdminBirth | None:
    """Make a freshly forked process of the actor system independent of, and mortal with, its parent.

    Returns:
        The circumstances of its birth when it is an Admin.

    """
    instance, assigned_address = endpoint.args[:2]
    birth = AdminBirth.current if assigned_address is not None else None
    if birth:
        birth.tie()
        birth.reservation.close()
        name_process("sal-admin")
    elif parent := multiprocessing.parent_process():
        die_with_parent(parent.pid)
        if instance == _LOGGER:
            name_process("sal-logger")
    AdminBirth.current = None
    for inherited in list(_open_transports):
        inherited.close()
    _open_transports.clear()
    # The parent's handlers would swallow our signals, and its wake-up descriptor would get them.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    reset_fatal_signals()
    return birth


class HardenedTransport(stock.TCPTransport):
    """A TCP transport that whoever can connect can neither command, nor fill, nor stop."""

    def __init__(self, initType: Any, *args: Any) -> None:
        birth = _begin_process(initType) if isinstance(initType, stock.TCPEndpoint) else None
        try:
            super().__init__(initType, *args)
        except OSError as error:
            if birth is None:
                raise
            birth.tell(error=error.strerror or type(error).__name__)
            os._exit(1)
        _open_transports.add(self)
        if birth:
            birth.tell(pid=os.getpid())

    def external_transport_clone(self) -> Self:
        """Return another endpoint for a thread or a single question. Thespian would make a plain one."""
        return type(self)(stock.ExternalTransportCopy(), self._adminAddr, self.txOnly, False)

    @staticmethod
    def probeAdmin(addr: Any) -> bool:
        """Tell whether anything listens at ``addr``. Thespian binds there, which gets in the way."""
        try:
            with socket.create_connection(addr.addressDetails.sockname[:2], timeout=_PROBE_SECONDS):
                return True
        except OSError:
            return False

    def close(self) -> None:
        """Close every socket of this transport, as often as called.

        Sockets are closed, not shut down: a forked process may close those it inherited without cutting its
        parent's connections. (Thespian's own close leaves them to the garbage collector.)
        """
        holders = [
            *getattr(self, "_transmitIntents", {}).values(),
            *getattr(self, "_waitingTransmits", []),
            *getattr(self, "_incomingSockets", {}).values(),
            *getattr(self, "_openSockets", {}).values(),
            self,
        ]
        self._transmitIntents: dict[int, Any] = {}
        self._waitingTransmits: list[Any] = []
        self._incomingSockets: dict[int, Any] = {}
        self._openSockets: dict[Any, Any] = {}
        for holder in holders:
            held = getattr(holder, "socket", None)
            if held is not None:
                # In a forked process Thespian has closed some of the descriptors already.
                with contextlib.suppress(OSError):
                    held.close()

    def interrupt_wait(self, signal_shutdown: bool = False, check_children: bool = False) -> None:
        """Wake the loop. Called in signal handlers, where an error would strike the actor anywhere."""
        with contextlib.suppress(OSError):
            super().interrupt_wait(signal_shutdown=signal_shutdown, check_children=check_children)

    def _acceptNewIncoming(self) -> None:
        super()._acceptNewIncoming()
        strangers = [
            descriptor
            for descriptor, incoming in self._incomingSockets.items()
            if incoming.fromAddress.addressDetails is None
        ]
        if len(strangers) > MOST_STRANGERS:
            oldest = min(
                strangers, key=lambda each: self._incomingSockets[each]._expires.view().remainingSeconds()
            )
            self._incomingSockets.pop(oldest).close()

    def _handleReadableIncoming(self, inc: Any, has_exclusive_flag: bool = False) -> Any:
        try:
            return super()._handleReadableIncoming(inc, has_exclusive_flag=has_exclusive_flag)
        except OSError:
            # The acknowledgement could not be written; Thespian would end the actor.
            inc.close()
            return None

    def _nextTransmitStep(self, intent: Any) -> bool:
        """Take the next step of a transmission; True while it goes on.

        Thespian forgets a transmission whose step raised (a forged acknowledgement, no descriptor left)
        without giving its slot back; twenty of them silence the actor. Here it is tried again.
        """
        try:
            going_on = getattr(self, f"_next_XMIT_{intent.stage}")(intent)
        except Exception:  # noqa: BLE001 - whatever it was, the slot must come back
            if intent.stage == self._XMITStepRetry:
                return bool(self._finishIntent(intent, SendStatus.Failed))
            intent.stage = self._XMITStepRetry
            return self._nextTransmitStep(intent)
        return bool(going_on)
