"""Thespian's TCP transport, hardened: bound to one address, sealed frames, no stranger can stop an actor.

What is said of Thespian here is true of version 4.0.1, ``system/transport/TCPTransport.py``.
"""

# ruff: noqa: N802, N803, N815 - Thespian's names are overridden
from __future__ import annotations

import contextlib
import logging
import os
import resource
import secrets
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import supervisors.name_service  # noqa: F401 - it must come first

# isort: split
import thespian.system.transport.TCPTransport as stock  # noqa: N813 - a module named like its class
from thespian.actors import ActorAddress
from thespian.system.transport import ReceiveEnvelope, SendStatus
from thespian.system.transport.IPBase import TCPv4ActorAddress, thisSystem
from thespian.system.transport.streamBuffer import (
    ackDataErrPacket,
    ackPacket,
    isControlMessage,
    toSendBuffer,
)
from thespian.system.utilis import thesplog

from supervisors import polling
from supervisors.births import begin_process, open_sockets
from supervisors.frames import FrameBuffer, FrameRefusedError, FrameSeal

#: Connections that have not yet brought a frame of ours, at most; the oldest gives way. One of ours brings
#: its frame at once unless its sender is busy, so this is far above what a healthy system has. They never get
#: more than a quarter of the descriptors.
MOST_STRANGERS = 128
#: Connections that may wait to be accepted: enough for all children of a supervisor that is busy.
_BACKLOG = 512
#: How long looking for a listener may take, in seconds.
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Network:
    """What all processes of one installation share: the key of their frames, and where they listen."""

    key: bytes = field(repr=False)
    bind_address: str


class BoundAddress(TCPv4ActorAddress):
    """An address that is listened on exactly where it says, and means one process for ever.

    Thespian would listen on every interface. And to it an address is a port; the system gives the port of a
    dead process to another soon (among 100 actors started in turn it is likely), which then got the messages
    meant for the dead one.
    """

    #: Which of the processes that have this port in turn is meant; empty: any (only the Admin's).
    incarnation: str = ""
    #: What a transport under construction means by "here", and who may say so.
    here: ClassVar[str] = "127.0.0.1"
    here_lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(
        self,
        initialIPAddr: str | None = None,
        initialIPPort: int | str = 0,
        external: Any = False,
    ) -> None:
        super().__init__(initialIPAddr or self.here, int(initialIPPort), external)

    def __eq__(self, other: object) -> bool:
        incarnations = {self.incarnation, getattr(other, "incarnation", "")} - {""}
        return bool(super().__eq__(other)) and len(incarnations) < 2

    def __hash__(self) -> int:
        return int(super().__hash__())

    @property
    def bindArgs(self) -> tuple[Any]:
        """The arguments of ``bind``."""
        return (self.sockname,)


class _UnsealedFrames:
    """Takes the place of Thespian's pickling: whatever is overlooked here fails instead of trusting."""

    def __init__(self, *_: Any) -> None: ...

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("an unsealed frame")

    loads = dumps = addMore = completed = remainingAmount = _refuse


# Thespian finds these by name in its module, also for the plain transports it makes by itself.
stock.serializer = _UnsealedFrames()
stock.ReceiveBuffer = _UnsealedFrames
stock.TCPv4ActorAddress = BoundAddress
stock.LISTEN_DEPTH = _BACKLOG
stock.selectors = polling


class HardenedTransport(stock.TCPTransport):
    """A TCP transport that whoever can connect can neither command, nor fill, nor stop.

    It is the first thing of ours that runs in each process of the actor system, right after the fork.
    """

    def __init__(self, initType: Any, *args: Any, network: Network | None = None) -> None:
        self.network: Network = network or initType.network
        self._seal = FrameSeal(self.network.key)
        self._acknowledgement = toSendBuffer(ackPacket, self._seal.dumps)
        self._refusal = toSendBuffer(ackDataErrPacket, self._seal.dumps)
        birth = begin_process(initType.addrInst) if isinstance(initType, stock.TCPEndpoint) else None
        thisSystem.add_local_addr(self.network.bind_address)
        try:
            with BoundAddress.here_lock:
                BoundAddress.here = self.network.bind_address
                super().__init__(initType, *args)
        except OSError as error:
            if birth is None:
                raise
            birth.tell(error=error.strerror or type(error).__name__)
            os._exit(1)
        open_sockets.add(self)
        if birth:
            birth.tell(pid=os.getpid())
        else:
            self.myAddress.addressDetails.incarnation = secrets.token_hex(8)

    # --- what is handed on -------------------------------------------------------------------------------

    def prepEndpoint(self, assignedLocalAddr: Any, capabilities: Any) -> Any:
        """Return what a child process needs to make its transport."""
        endpoint = super().prepEndpoint(assignedLocalAddr, capabilities)
        endpoint.network = self.network
        return endpoint

    def external_transport_clone(self) -> Self:
        """Return another endpoint for a thread or a single question. Thespian would make a plain one."""
        return type(self)(stock.ExternalTransportCopy(), self._adminAddr, self.txOnly, False, network=self.network)

    def getAdminAddr(self, capabilities: Any) -> ActorAddress:
        """Return the address of the Admin."""
        return ActorAddress(BoundAddress(self.network.bind_address, capabilities["Admin Port"], True))

    @staticmethod
    def probeAdmin(addr: Any) -> bool:
        """Tell whether anything listens at ``addr``. Thespian binds there, which gets in the way."""
        try:
            with socket.create_connection(addr.addressDetails.sockname[:2], timeout=_PROBE_SECONDS):
                return True
        except OSError:
            return False

    # --- what is received --------------------------------------------------------------------------------

    def _acceptNewIncoming(self) -> None:
        super()._acceptNewIncoming()
        most = min(MOST_STRANGERS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        strangers = [
            descriptor
            for descriptor, incoming in self._incomingSockets.items()
            if incoming.fromAddress.addressDetails is None
        ]
        if len(strangers) > most:
            oldest = min(strangers, key=lambda each: self._incomingSockets[each]._expires.view().remainingSeconds())
            self._incomingSockets.pop(oldest).close()

    def _handleReadableIncoming(self, inc: Any, has_exclusive_flag: bool = False) -> Any:
        """Read what has come of a frame, to its end: Thespian takes a round of its loop for each part."""
        if not isinstance(inc._rData, FrameBuffer):
            inc._rData = FrameBuffer(self._seal)
        left = inc
        while left is inc:
            left = super()._handleReadableIncoming(inc, has_exclusive_flag=has_exclusive_flag)
            if left is not inc or not _can_be_read(inc.socket):
                break
        return left

    def _addedDataToIncoming(self, inc: Any, skipFinish: bool = False, has_exclusive_flag: bool = False) -> Any:
        """Acknowledge and queue a message that has come completely; return the connection when it has not.

        As Thespian's, but for the seal of the acknowledgement, and that failing to write it ends nothing.
        """
        if not inc.receivedAllData():
            return inc
        try:
            envelope = ReceiveEnvelope(*self._received(inc))
        except Exception as error:  # noqa: BLE001 - unpickling a message may raise anything
            thesplog("refused a message: %r", error, level=logging.WARNING)
            with contextlib.suppress(OSError):
                inc.socket.send(self._refusal)
            inc.close()
            return None
        with contextlib.suppress(OSError):
            inc.socket.send(self._acknowledgement)
        inc.fromAddress = envelope.sender
        self._processReceivedEnvelope(envelope, has_exclusive_flag=has_exclusive_flag)
        if not skipFinish:
            self._finishIncoming(inc, envelope.sender)
        return None

    def _received(self, inc: Any) -> tuple[Any, Any]:
        received, _nothing = inc.data
        if isControlMessage(received):
            raise ValueError("an acknowledgement of nothing")
        addressee, sender, message = received
        if addressee and addressee != self.myAddress.addressDetails.incarnation:
            raise ValueError("a message for a process that had this port before")
        return sender, message

    # --- what is sent ------------------------------------------------------------------------------------

    def serializer(self, intent: Any) -> bytes:
        """Return the frame of a message."""
        addressee = getattr(intent.targetAddr.addressDetails, "incarnation", "")
        return bytes(toSendBuffer((addressee, self.myAddress, intent.message), self._seal.dumps))

    def _next_XMIT_4(self, intent: Any) -> bool:
        """Read an acknowledgement, to its end."""
        going_on = bool(super()._next_XMIT_4(intent))
        while going_on and intent.stage == self._XMITStepWaitForAck and _can_be_read(intent.socket):
            going_on = bool(super()._next_XMIT_4(intent))
        return going_on

    def _check_XMIT_4_done(self, intent: Any, rcv: bytes) -> bool:
        if not isinstance(intent.ackbuf, FrameBuffer):
            intent.ackbuf = FrameBuffer(self._seal)
        return bool(super()._check_XMIT_4_done(intent, rcv))

    def _next_XMIT_3(self, intent: Any) -> bool:
        going_on = bool(super()._next_XMIT_3(intent))
        intent.ackbuf = FrameBuffer(self._seal)
        return going_on

    def _nextTransmitStep(self, intent: Any) -> bool:
        """Take the next step of a transmission; True while it goes on.

        Thespian forgets a transmission whose step raised (a forged acknowledgement, no descriptor left)
        without giving its slot back; twenty of them silence the actor.
        """
        try:
            going_on = getattr(self, f"_next_XMIT_{intent.stage}")(intent)
        except FrameRefusedError:
            # Whoever answered has not the key: the actor that had this address is gone.
            return bool(self._finishIntent(intent, SendStatus.DeadTarget))
        except Exception:  # noqa: BLE001 - whatever it was, the slot must come back
            if intent.stage == self._XMITStepRetry:
                return bool(self._finishIntent(intent, SendStatus.Failed))
            intent.stage = self._XMITStepRetry
            return self._nextTransmitStep(intent)
        return bool(going_on)

    # --- its life ----------------------------------------------------------------------------------------

    def interrupt_wait(self, signal_shutdown: bool = False, check_children: bool = False) -> None:
        """Wake the loop. Called in signal handlers, where an error would strike the actor anywhere."""
        with contextlib.suppress(OSError):
            super().interrupt_wait(signal_shutdown=signal_shutdown, check_children=check_children)

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


def _can_be_read(connection: socket.socket) -> bool:
    """Return whether a read would give something now, be it the connection's end."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the read will say what is wrong
    return True
