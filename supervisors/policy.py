"""What is done about each trouble of a device: one table, pure functions, no loop.

The causes are those of the WhatsApp client's events and of our own observation; the table says which state the
device goes to, in what words, and what happens next. The supervisor applies it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.devices import Device


class Action(Enum):
    """What the supervisor does next."""

    NONE = "nothing"
    WAIT_FOR_LIBRARY = "let the library reconnect; refresh when it has not in time"
    PROBE = "ask the server whether the connection lives; refresh when it does not answer"
    REFRESH = "refresh after a back-off"
    HOLD = "leave the session alone for minutes, then one careful refresh"
    SLEEP = "no attempt before the server's time is over"
    STOP = "nothing is tried until the operator acts"


@dataclass(frozen=True)
class Policy:
    """The answer to one cause.

    Attributes:
        state: the device's state from now on.
        words: what is wrong, for people.
        action: what happens next.
        advice: what the operator can do.
        alert: whether this deserves attention beyond a log line.
    """

    state: str
    words: str
    action: Action
    advice: str = ""
    alert: bool = False


_WAIT_ADVICE = "Nothing; it heals by itself."

#: Every cause there is. Keys are stable: they are stored, shown and documented.
POLICIES: dict[str, Policy] = {
    "connected": Policy("online", "Connected.", Action.NONE),
    "disconnected": Policy("reconnecting", "The connection was lost.", Action.WAIT_FOR_LIBRARY, _WAIT_ADVICE),
    "stream_error": Policy("reconnecting", "The server ended the stream.", Action.WAIT_FOR_LIBRARY, _WAIT_ADVICE),
    "keepalive_timeout": Policy(
        "reconnecting", "The server no longer answers on this connection.", Action.PROBE, _WAIT_ADVICE
    ),
    "probe_failed": Policy(
        "refreshing", "The connection is open but dead (half-open socket).", Action.REFRESH, _WAIT_ADVICE
    ),
    "reconnect_timeout": Policy("refreshing", "The library did not reconnect in time.", Action.REFRESH, _WAIT_ADVICE),
    "connect_refused": Policy(
        "refreshing",
        "WhatsApp could not be reached.",
        Action.REFRESH,
        "Check the network, and the proxy if one is set.",
    ),
    "connect_timeout": Policy(
        "refreshing",
        "WhatsApp did not answer in time.",
        Action.REFRESH,
        "Check the network, and the proxy if one is set.",
    ),
    "proxy_error": Policy(
        "refreshing",
        "The device's proxy refused the connection.",
        Action.REFRESH,
        "Check the proxy of this device.",
    ),
    "certificate_refused": Policy(
        "refreshing",
        "WhatsApp's certificate is not trusted.",
        Action.REFRESH,
        "Check the clock, the system's certificates, and whether a proxy opens TLS.",
        alert=True,
    ),
    "server_error": Policy("refreshing", "WhatsApp's server reports a fault of its own.", Action.REFRESH, _WAIT_ADVICE),
    "store_unavailable": Policy(
        "refreshing", "The session store (PostgreSQL) cannot be reached.", Action.REFRESH, "Check PostgreSQL."
    ),
    "stuck": Policy("refreshing", "It did not leave a passing state in time.", Action.REFRESH, _WAIT_ADVICE),
    "send_hangs": Policy(
        "refreshing", "A send got no answer in time; its connection is renewed.", Action.REFRESH, _WAIT_ADVICE
    ),
    "crashed": Policy("refreshing", "The device actor failed.", Action.REFRESH, "See run.py logs --device."),
    "shard_died": Policy("connecting", "The process that hosted it ended.", Action.REFRESH, _WAIT_ADVICE),
    "moved": Policy("connecting", "It moved to a fresh process.", Action.REFRESH, _WAIT_ADVICE),
    "no_jid": Policy(
        "needs_pairing", "No phone is linked.", Action.STOP, "Link one: run.py device pair NAME", alert=True
    ),
    "store_missing": Policy(
        "needs_pairing",
        "Its session is not in the store.",
        Action.STOP,
        "Link the phone again: run.py device pair NAME",
        alert=True,
    ),
    "logged_out": Policy(
        "logged_out",
        "The phone unlinked this device.",
        Action.STOP,
        "Link the phone again: run.py device pair NAME. Its messages wait.",
        alert=True,
    ),
    "replaced": Policy(
        "conflict",
        "Another program connected with this session.",
        Action.HOLD,
        "Stop the other program, then: run.py device refresh NAME",
        alert=True,
    ),
    "banned": Policy(
        "banned",
        "WhatsApp refuses this account for a time.",
        Action.SLEEP,
        "Wait; send less and only to people who expect it.",
        alert=True,
    ),
    "outdated": Policy(
        "outdated",
        "WhatsApp refuses this version of the library.",
        Action.STOP,
        "Upgrade neonize: raise its pin in pyproject.toml, then make lock && make check test && run.py stop && "
        "run.py start (docs/operating.md, Upgrade). Its messages wait.",
        alert=True,
    ),
    "paused": Policy("paused", "Paused by the operator.", Action.STOP, "run.py device resume NAME"),
    "pairing_ended": Policy(
        "needs_pairing",
        "The pairing ended before a phone was linked.",
        Action.STOP,
        "Try again: run.py device pair NAME",
    ),
}


def advice_for(device: Device) -> str:
    """Return what the operator can do about a device's state."""
    policy = POLICIES.get(device.reason_code)
    if policy is not None and policy.advice:
        return policy.advice.replace("NAME", device.name)
    if device.state == "pairing":
        return "On the phone: Linked devices, Link a device; scan the QR, or type the code."
    return f"Link a phone: run.py device pair {device.name}" if device.state == "needs_pairing" else ""


def needs_attention(device: Device) -> bool:
    """Return whether a device waits for a person."""
    policy = POLICIES.get(device.reason_code)
    return device.state == "needs_pairing" or (policy is not None and policy.alert and device.state == policy.state)


#: Causes that may mean that the server is away, when many devices have them at once.
OUTAGE_CAUSES = frozenset(
    {"disconnected", "stream_error", "connect_refused", "connect_timeout", "server_error", "probe_failed"}
)
#: Causes that end for every device at the same moment: that one came online tells the others to try now.
SHARED_CAUSES = OUTAGE_CAUSES | {"certificate_refused", "store_unavailable", "reconnect_timeout"}
#: What an unknown cause is treated as.
UNKNOWN_CAUSE = "connect_refused"

#: States in which a send may ask for a healthy client: all others wait for the operator, a time or a phone.
CAN_HEAL = frozenset({"connecting", "online", "reconnecting", "refreshing"})

#: The longest wait before a process is started again, in seconds. A start costs little and connects nothing by
#: itself: it is the fleet's budget that spares the server, and quarantine that isolates what crashes.
LONGEST_PROCESS_WAIT = 3.0

#: A replaced session is tried again after this long, then after twice as long, and so on up to the last.
HOLD_SECONDS = (300.0, 900.0, 3600.0)
#: How long a ban is waited for when the server names no time.
BAN_SECONDS = 3600.0


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with jitter: short at first, so that one fault heals at once, then ever calmer."""

    first: float
    longest: float

    def seconds(self, attempt: int, chance: float) -> float:
        """Return how long to wait before attempt ``attempt`` (1 is the first; ``chance`` lies in [0, 1)).

        The first attempt waits at most a tenth of ``first``: most faults are single. Each later one waits between
        half and all of its doubled ceiling, so that a fleet that fell together does not come back together.
        """
        if attempt <= 1:
            return 0.1 * self.first * chance
        ceiling = min(self.longest, self.first * 2.0 ** min(attempt - 2, 30))
        return ceiling * (0.5 + 0.5 * chance)


@dataclass
class RestartIntensity:
    """How often something was restarted lately. Above the limit it is slowed down, never given up.

    Attributes:
        limit: restarts within ``window`` seconds that are still ordinary.
    """

    limit: int
    window: float

    def __post_init__(self) -> None:
        self._moments: list[float] = []

    def exceeded(self, now: float) -> bool:
        """Count a restart at ``now`` (monotonic seconds) and say whether there are too many."""
        self._moments = [moment for moment in self._moments if now - moment < self.window]
        self._moments.append(now)
        return len(self._moments) > self.limit


@dataclass
class Trouble:
    """What a device went through since it was last stable: the memory behind its next decision."""

    attempts: int = 0
    holds: int = 0
    online_since: float | None = None

    def came_online(self, now: float) -> None:
        """Note that the device is online since ``now``."""
        self.online_since = now

    def next_attempt(self, now: float, stable_seconds: float) -> int:
        """Return which attempt in a row the next refresh is; a stable time online starts afresh."""
        if self.online_since is not None and now - self.online_since >= stable_seconds:
            self.attempts = 0
            self.holds = 0
        self.online_since = None
        self.attempts += 1
        return self.attempts


def delay_before(policy: Policy, trouble: Trouble, attempt: int, backoff: Backoff, ban_seconds: float | None) -> float:
    """Return how many seconds pass before the action of ``policy`` is carried out."""
    chance = random.random()  # noqa: S311 - jitter is no secret
    if policy.action is Action.HOLD:
        hold = HOLD_SECONDS[min(trouble.holds, len(HOLD_SECONDS) - 1)]
        trouble.holds += 1
        return hold * (1.0 + 0.1 * chance)
    if policy.action is Action.SLEEP:
        return (BAN_SECONDS if ban_seconds is None else max(ban_seconds, 1.0)) + 10.0 * chance
    if policy.action is Action.REFRESH:
        return backoff.seconds(attempt, chance)
    return 0.0
