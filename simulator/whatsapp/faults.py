"""Faults on request: what the simulator does wrong, to whom, and for how long."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import Refused


class Stage(enum.Enum):
    """When a fault shows."""

    #: Before the server can know which device connects, so only for all of them.
    CONNECT = enum.auto()
    #: When a device logs in.
    LOGIN = enum.auto()
    #: At once on the connections there are; with a duration also on each that logs in during it.
    MOMENT = enum.auto()
    #: For as long as it is set.
    LASTING = enum.auto()


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    stage: Stage
    line: str


#: Every kind of fault and what it does.
FAULTS: dict[str, Fault] = {
    "reset": Fault(Stage.MOMENT, "reset the connection (TCP RST)"),
    "half-open": Fault(Stage.LASTING, "keep the connections there are, but neither read nor answer; new ones work"),
    "lost-ack": Fault(Stage.LASTING, "record and deliver messages, but never acknowledge them"),
    "drop-message": Fault(Stage.LASTING, "swallow messages: neither deliver nor acknowledge them"),
    "ack-error": Fault(Stage.LASTING, "refuse messages with error 463 instead of delivering them"),
    "iq-error": Fault(Stage.LASTING, "answer every query with error 500"),
    "failure-401": Fault(Stage.LOGIN, "refuse the login: logged out; the companion is forgotten"),
    "failure-402": Fault(Stage.LOGIN, "refuse the login: temporarily banned for an hour"),
    "failure-403": Fault(Stage.LOGIN, "refuse the login: account locked; the companion is forgotten"),
    "failure-405": Fault(Stage.LOGIN, "refuse the login: client outdated"),
    "failure-406": Fault(Stage.LOGIN, "refuse the login: account banned; the companion is forgotten"),
    "failure-503": Fault(Stage.LOGIN, "refuse the login: service unavailable"),
    "stream-503": Fault(Stage.MOMENT, "end the stream with error 503, as a restarting server does"),
    "replaced": Fault(Stage.MOMENT, "end the stream as if another client had logged in"),
    "device-removed": Fault(Stage.MOMENT, "unlink the companion, as from the phone's list of devices"),
    "slow": Fault(Stage.LASTING, "send everything three seconds late"),
    "refuse": Fault(Stage.CONNECT, "the proxy answers 502 to every connection"),
    "tls-failure": Fault(Stage.CONNECT, "present a certificate that nobody trusts"),
    "blackhole": Fault(Stage.CONNECT, "accept connections and say nothing, not even TLS"),
    "http-503": Fault(Stage.CONNECT, "answer the WebSocket upgrade with HTTP 503"),
    "clear": Fault(Stage.LASTING, "end all faults, or those of one device"),
}

#: How late everything is under ``slow``, in seconds.
SLOW_SECONDS = 3.0
#: The companion's key a fault is set for; device 0 stands for all companions of the number.
Target = tuple[str, int]


class FaultBoard:
    """The faults that are set now. Time is monotonic; a fault without a duration stays until it is cleared."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._set: dict[tuple[str, Target | None], float | None] = {}

    def set(self, kind: str, target: Target | None = None, seconds: float | None = None) -> None:
        """Set a fault for one target or for all, or clear them.

        Raises:
            Refused: there is no such fault, or it cannot be set for one device.
        """
        fault = FAULTS.get(kind)
        if fault is None:
            raise Refused(f"There is no fault {kind!r}.", f"Choose one of: {', '.join(FAULTS)}.")
        if fault.stage is Stage.CONNECT and target is not None:
            raise Refused(
                f"The fault {kind} strikes before the server knows which device connects.",
                "Set it without a device.",
            )
        if kind == "clear":
            self._set = {key: end for key, end in self._set.items() if target and key[1] != target}
        elif fault.stage is not Stage.MOMENT or seconds is not None:
            self._set[kind, target] = None if seconds is None else self._now() + seconds

    def active(self, kind: str, companion: Target | None = None) -> bool:
        """Tell whether a fault is set for ``companion`` (None: for everybody)."""
        if not self._set:
            return False
        targets: tuple[Target | None, ...] = (None,)
        if companion is not None:
            targets = (None, companion, (companion[0], 0))
        return any(self._running((kind, target)) for target in targets)

    def first_active(self, kinds: tuple[str, ...], companion: Target) -> str | None:
        """Return the first of ``kinds`` that is set for ``companion``."""
        return next((kind for kind in kinds if self.active(kind, companion)), None)

    def current(self) -> list[tuple[str, Target | None, float | None]]:
        """Return what is set: kind, target, and the seconds left (None: until cleared)."""
        return [
            (kind, target, None if end is None else round(end - self._now(), 1))
            for (kind, target), end in list(self._set.items())
            if self._running((kind, target))
        ]

    def _running(self, key: tuple[str, Target | None]) -> bool:
        if key not in self._set:
            return False
        end = self._set[key]
        if end is None or self._now() < end:
            return True
        del self._set[key]
        return False


def kinds_at(stage: Stage) -> tuple[str, ...]:
    """Return the kinds of fault that show at ``stage``."""
    return tuple(kind for kind, fault in FAULTS.items() if fault.stage is stage)
