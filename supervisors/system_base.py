"""Two ends of Thespian's actor system: the watchdog's starts an Admin, a client's never does.

``ActorSystem`` takes either as its system base. Processes are made by forking: that shares the memory of the
imported libraries, and hands the key on without writing it anywhere.
"""

# ruff: noqa: N802, N803 - Thespian's names are overridden
from __future__ import annotations

import functools
import json
import os
import select
import time
import types
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from thespian.system.messages.admin import QueryAck, QueryExists
from thespian.system.messages.multiproc import EndpointConnected
from thespian.system.multiprocCommon import multiprocessCommon, startAdmin
from thespian.system.transport import ReceiveEnvelope

from supervisors.births import AdminBirth
from supervisors.processes import become_subreaper, process_started
from supervisors.replication import NamingAdmin
from supervisors.transport import HardenedTransport

if TYPE_CHECKING:
    import socket

    from supervisors.transport import Network

#: What the Admin calls itself.
_NAME = "salamanderTCPBase"
#: How long a new Admin and its logger may take until they serve, in seconds (about 0.1 on an idle machine).
START_SECONDS = 20.0
#: How long the Admin may take to answer a client that finds its port open, in seconds.
ANSWER_SECONDS = 5.0


class AdminNotStartedError(Exception):
    """Why a new Admin did not come to serve."""


class _SystemBase(multiprocessCommon):
    """What the watchdog's and the clients' ends have in common."""

    def __init__(self, network: Network, port: int) -> None:
        self.transportType = functools.partial(HardenedTransport, network=network)
        system = types.SimpleNamespace(
            capabilities={
                "Admin Port": port,
                "Process Startup Method": "fork",
                "Thespian ActorSystem Name": _NAME,
                "Thespian ActorSystem Version": 1,
                "Thespian Watch Supported": True,
            }
        )
        try:
            super().__init__(system)
        except BaseException:
            if hasattr(self, "transport"):
                self.transport.close()
            raise

    def shutdown(self) -> None:
        try:
            super().shutdown()
        finally:
            self.transport.close()


class ClientSystemBase(_SystemBase):
    """Talks to a running Admin; never starts one."""

    def _startAdmin(self, *_: Any) -> None:
        raise ConnectionRefusedError

    def _verifyAdminRunning(self) -> bool:
        watch = self._tx_to_admin(QueryExists())
        deadline = time.monotonic() + ANSWER_SECONDS
        while (remaining := deadline - time.monotonic()) > 0:
            answer = self._run_transport(timedelta(seconds=remaining))
            if watch.failed:
                raise ConnectionRefusedError
            if isinstance(answer, ReceiveEnvelope) and isinstance(answer.message, QueryAck):
                if answer.message.inShutdown:
                    raise ConnectionRefusedError
                return True
        raise TimeoutError


class DaemonSystemBase(_SystemBase):
    """Starts an Admin of its own, and is content with no other."""

    admin_pid: int | None = None

    def __init__(self, network: Network, reservation: socket.socket) -> None:
        self._reservation = reservation
        super().__init__(network, reservation.getsockname()[1])

    def _startAdmin(self, adminAddr: Any, addrOfStarter: Any, capabilities: Any, logDefs: Any) -> None:
        reading, writing = os.pipe()
        adopting = become_subreaper()
        AdminBirth.current = AdminBirth(
            starter=os.getpid() if adopting else None,
            starter_since=process_started(os.getpid()),
            report=writing,
            reservation=self._reservation,
        )
        try:
            process = self.mpcontext.Process(
                target=startAdmin,
                args=(
                    NamingAdmin,
                    addrOfStarter,
                    self.transport.prepEndpoint(adminAddr, capabilities),
                    type(self.transport),
                    adminAddr,
                    capabilities,
                    logDefs,
                    self.mpcontext,
                ),
                name="ThespianAdmin",
            )
            process.start()
        finally:
            AdminBirth.current = None
            os.close(writing)
        # This is the process between, which ends as soon as it has forked the Admin.
        process.join()
        deadline = time.monotonic() + START_SECONDS
        with os.fdopen(reading, "rb", buffering=0) as report:
            self.admin_pid = _read_pid(report.fileno(), deadline)
        while (remaining := deadline - time.monotonic()) > 0:
            answer = self.transport.run(None, timedelta(seconds=remaining))
            if isinstance(answer, ReceiveEnvelope) and isinstance(answer.message, EndpointConnected):
                return
        raise AdminNotStartedError("its logger process did not come up in time")

    def _verifyAdminRunning(self) -> bool:
        if self.admin_pid is None:
            raise AdminNotStartedError("another program took its port")
        return bool(super()._verifyAdminRunning())


def _read_pid(report: int, deadline: float) -> int:
    """Read what the Admin reports about its birth: its pid, once it listens."""
    if not select.select([report], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise AdminNotStartedError("it did not listen in time")
    told = json.loads(os.read(report, 4096) or b'{"error": "it died at once"}')
    if "error" in told:
        raise AdminNotStartedError(str(told["error"]))
    return int(told["pid"])
