"""How fast messages go through a fleet, and how long one takes from the call to its recipient's decryption."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.fleet import Fleet
from actors.messages import MessageAccepted, SendMessage
from benchmarks.support.bench import percentile
from benchmarks.support.daemon_watch import DaemonWatch
from benchmarks.support.trial import Trial, TrialFailed

_BATCH = 100
_LOOK_SECONDS = 0.5
#: Messages on their way at once, at most: the simulator is one process, and thousands of queries that wait in it are
#: not what is measured.
_WINDOW = 300
#: Recipients have numbers of their own, beginning here.
_FIRST_RECIPIENT = 60_198_000_001
_serials = itertools.count(1)


def recipients(count: int) -> list[str]:
    """Return so many recipients' numbers; each device has one of its own."""
    return [str(_FIRST_RECIPIENT + number) for number in range(count)]


@dataclass(frozen=True)
class Flow:
    """What went through: ``moments`` are the decryptions in order (seconds since the epoch)."""

    messages: int
    seconds: float
    moments: tuple[float, ...]
    cpu_ms_per_message: dict[str, float]

    @property
    def per_second(self) -> float:
        """The rate from the first tenth of the decryptions to the last: starting and ending up are left out."""
        return steady_rate(self.moments)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "messages": self.messages,
            "seconds": round(self.seconds, 2),
            "per_second": round(self.per_second, 1),
            "cpu_ms_per_message": {name: round(each, 2) for name, each in sorted(self.cpu_ms_per_message.items())},
        }


def steady_rate(moments: Sequence[float]) -> float:
    """Return events a second between the first and the last tenth of ``moments``."""
    tenth = len(moments) // 10
    middle = moments[tenth : len(moments) - tenth]
    return (len(middle) - 1) / (middle[-1] - middle[0]) if len(middle) > 1 and middle[-1] > middle[0] else 0.0


def flow_through(trial: Trial, devices: Sequence[str], each: int, longest: float) -> Flow:
    """Let every device send ``each`` messages to its recipient, some hundred at a time; return how fast they went.

    Raises:
        TrialFailed: not all arrived in time.
    """
    mark = f"flow-{next(_serials)}"
    watch = DaemonWatch(trial)
    pids = watch.pids()
    before = watch.moment(pids).cpu
    began = time.time()
    messages = [
        SendMessage(device, to, f"{mark} {number}")
        for number in range(each)
        for device, to in zip(devices, recipients(len(devices)), strict=True)
    ]
    sent = int(trial.simulator.stats()["messages"])
    with Fleet(trial.home.path, timeout=60) as fleet:
        for first in range(0, len(messages), _BATCH):
            while int(trial.simulator.stats()["messages"]) - sent < first + _BATCH - _WINDOW:
                if time.time() > began + longest:
                    raise TrialFailed(f"the fleet is stuck after {first} messages")
                time.sleep(0.05)
            answers = fleet.send_batch(messages[first : first + _BATCH])
            if not all(isinstance(answer, MessageAccepted) for answer in answers):
                raise TrialFailed(f"the router refused: {answers[0]}")
    moments = await_decrypted(trial, mark, len(messages), began + longest)
    after = watch.moment(pids).cpu
    watch.close()
    cpu = {group: 1000 * (after[group] - before[group]) / len(messages) for group in before}
    return Flow(len(messages), time.time() - began, tuple(sorted(moments.values())), cpu)


def await_decrypted(trial: Trial, mark: str, count: int, deadline: float) -> dict[tuple[str, str], float]:
    """Wait until phones have decrypted ``count`` texts that begin with ``mark``; return when, by recipient and text."""
    before = -1
    while True:
        # The counter is asked first: reading all inboxes again and again would be the larger load.
        decrypted = int(trial.simulator.stats()["decrypted"])
        if decrypted != before or time.time() > deadline:
            before = decrypted
        else:
            found = _decrypted(trial, mark)
            if len(found) >= count:
                return found
        if time.time() > deadline:
            raise TrialFailed(f"{len(_decrypted(trial, mark))} of {count} messages arrived in time")
        time.sleep(_LOOK_SECONDS)


def _decrypted(trial: Trial, mark: str) -> dict[tuple[str, str], float]:
    boxes = trial.simulator.all_inboxes().items()
    return {(to, row["text"]): row["time"] for to, box in boxes for row in box if row["text"].startswith(f"{mark} ")}


def latency_at(trial: Trial, devices: Sequence[str], per_second: float, seconds: float) -> dict[str, Any]:
    """Call the router at a steady rate, device after device; return how long messages took to be decrypted.

    Raises:
        TrialFailed: not all arrived.
    """
    mark = f"load-{next(_serials)}"
    called: dict[tuple[str, str], float] = {}
    pairs = itertools.cycle(zip(devices, recipients(len(devices)), strict=True))
    with Fleet(trial.home.path, timeout=60) as fleet:
        began = time.time()
        for number in range(max(10, round(per_second * seconds))):
            time.sleep(max(0.0, began + number / per_second - time.time()))
            device, to = next(pairs)
            text = f"{mark} {number}"
            called[to, text] = time.time()
            fleet.send(device, to, text)
        elapsed = time.time() - began
    decrypted = await_decrypted(trial, mark, len(called), time.time() + 120)
    taken = [decrypted[message] - at for message, at in called.items()]
    return {
        "wanted_per_second": round(per_second, 1),
        "per_second": round(len(called) / elapsed, 1),
        "messages": len(called),
        "p50": round(percentile(taken, 0.5), 4),
        "p99": round(percentile(taken, 0.99), 4),
    }
