"""The Admin and the process of an actor, made reliable: every death is reported once, every failure answered.

Corrections to Thespian 4.0.1 (``system/multiprocCommon.py``, ``system/admin``):

- When several children died together, it collected all at the first report and told of one in five not.
- A child that died before it had connected was not reported, and who asked for it waited 50 seconds.
- A death after an orderly goodbye was reported twice.
- A named actor that could not be created blocked its name for ever.
- The death of the logger process ended the Admin.
- A Python handler for every signal let a broken process spin for ever instead of dying.
"""

# ruff: noqa: N802, N803 - Thespian's names are overridden
from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from thespian.actors import ActorAddress, ActorSystemMessage, ChildActorExited
from thespian.system import multiprocCommon
from thespian.system.messages.admin import PendingActorResponse
from thespian.system.transport import TransmitIntent

from supervisors.processes import name_process, reset_fatal_signals

#: The standard library's logging, before Thespian replaces it in each actor by one that sends every record
#: through the transport (a hundred times slower, and not safe from other threads).
_STANDARD_ROOT = logging.root
_STANDARD_MANAGER = logging.Logger.manager


@dataclass(frozen=True)
class FindName(ActorSystemMessage):
    """Asks the Admin for the actor with a global name."""

    name: str


@dataclass(frozen=True)
class NameFound:
    """The Admin's answer: the actor's address, or None when no actor has the name."""

    name: str
    address: ActorAddress | None


class ReliableExits:
    """Tells of each dead child once. Mixed into Thespian's ``MultiProcReplicator``."""

    _child_procs: list[Any]

    def _childExited(self, childAddr: Any) -> None:
        """Note that a child's exit is known; Thespian would collect, and forget, the other dead ones."""
        for child in getattr(self, "_child_procs", []):
            if getattr(child, "childRealAddr", None) == childAddr:
                child.exit_known = True

    def childDied(self) -> bool:
        """Report every child found dead; called after a SIGCHLD. True: go on."""
        self._replace_dead_logger()
        children = getattr(self, "_child_procs", [])
        dead = [child for child in children if not self._is_alive(child)]
        self._child_procs = [child for child in children if child not in dead]
        for child in dead:
            address = getattr(child, "childRealAddr", None)
            if address is None:
                self._report_stillborn(child)
            elif not getattr(child, "exit_known", False):
                self._report_exit(address)
        return True

    def h_EndpointConnected(self, envelope: Any) -> bool:
        """Welcome a child, unless it has been reported dead meanwhile."""
        instance = envelope.message.childInstance
        if any(child.childNum == instance for child in getattr(self, "_child_procs", [])):
            return bool(super().h_EndpointConnected(envelope))  # type: ignore[misc] # of the replicator
        return True

    def _is_alive(self, child: Any) -> bool:
        return bool(multiprocCommon.MultiProcReplicator._checkChildLiveness(child))

    def _report_exit(self, address: Any) -> None:
        transport = self.transport  # type: ignore[attr-defined] # of the replicator
        transport.scheduleTransmit(None, TransmitIntent(transport.myAddress, ChildActorExited(address)))

    def _report_stillborn(self, child: Any) -> None:
        raise NotImplementedError

    def _replace_dead_logger(self) -> None:
        """Do nothing: only the Admin has a logger process."""


class ActorProcess(ReliableExits, multiprocCommon.MultiProcManager):
    """Runs one actor in its process."""

    def run(self) -> None:
        """Create the actor and serve it until it exits."""
        # Thespian has just installed handlers for all signals; the actor's __init__ comes next.
        reset_fatal_signals()
        logging.root = _STANDARD_ROOT
        logging.Logger.root = _STANDARD_ROOT
        logging.Logger.manager = _STANDARD_MANAGER
        name_process(f"sal-{str(getattr(self._actorClass, '__name__', self._actorClass)).rpartition('.')[2]}")
        super().run()

    def _report_stillborn(self, child: Any) -> None:
        self._retryPendingChildOperations(child.childNum, None)


class NamingAdmin(ReliableExits, multiprocCommon.MultiProcAdmin):
    """The head of the actor system, which also finds actors by name."""

    def h_FindName(self, envelope: Any) -> bool:
        """Answer with the address of an existing actor; create none."""
        name = envelope.message.name
        self._send_intent(TransmitIntent(envelope.sender, NameFound(name, self._globalNames.get(name))))
        return True

    def _sendPendingActorResponse(
        self, requestEnvelope: Any, actualAddress: Any, errorCode: Any = None, errorStr: Any = None
    ) -> None:
        if errorCode is not None:
            self._forget_pending(requestEnvelope)
        super()._sendPendingActorResponse(requestEnvelope, actualAddress, errorCode=errorCode, errorStr=errorStr)

    def _forget_pending(self, request: Any) -> None:
        # At shutdown Thespian turns the mapping into an empty list.
        if isinstance(self._pendingChildren, dict):
            for instance, requests in list(self._pendingChildren.items()):
                if any(each is request for each in requests):
                    del self._pendingChildren[instance]

    def _report_stillborn(self, child: Any) -> None:
        requests = list(self._pendingChildren.get(child.childNum, [])) if self._pendingChildren else []
        for request in requests:
            self._sendPendingActorResponse(
                request,
                None,
                errorCode=PendingActorResponse.ERROR_Invalid_ActorClass,
                errorStr="its process died while it started",
            )

    def _replace_dead_logger(self) -> None:
        logger = getattr(self, "asLogProc", None)
        if logger and not hasattr(self, "_exiting") and not self._is_alive(logger):
            multiprocCommon._startLogger(
                type(self.transport), self.transport, self, self.capabilities, self.logdefs, self.mpcontext
            )


# Thespian's startChild finds the class by this name.
multiprocCommon.MultiProcManager = ActorProcess
