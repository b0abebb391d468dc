"""A long run of ordinary work: sends, refreshes and broken sockets at a steady pace, with what it takes over time."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.fleet import Fleet
from actors.messages import MessageAccepted, SendMessage
from benchmarks.support.daemon_watch import DaemonWatch
from benchmarks.support.sending_trial import recipients
from benchmarks.support.trial import Trial
from config.errors import SalamanderError
from storage.outbox import FINAL_STATES

#: How often memory and the like are looked at, in seconds.
_SAMPLE_SECONDS = 15.0
#: How long what was accepted may take to be finished in the end, in seconds.
_END_SECONDS = 120.0


@dataclass(frozen=True)
class Sample:
    """What was taken at one moment (PSS in MB; ``seconds`` since the beginning)."""

    seconds: float
    product_mb: float
    shards_mb: float
    postgres_mb: float
    processes: int
    threads: int
    descriptors: int
    connections: int

    @classmethod
    def of(cls, watch: DaemonWatch, seconds: float) -> Sample:
        """Look now."""
        groups = watch.consumption()
        ours = [each for group, each in groups.items() if group not in {"simulator", "postgres"}]
        return cls(
            round(seconds, 1),
            round(sum(each.pss_mb for each in ours), 1),
            round(groups["shards"].pss_mb if "shards" in groups else 0.0, 1),
            round(groups["postgres"].pss_mb, 1),
            sum(each.processes for each in ours),
            sum(each.threads for each in ours),
            sum(each.descriptors for each in ours),
            watch.connections(),
        )


@dataclass
class Work:
    """What was done, and what went wrong with it."""

    sent: int = 0
    refreshes: int = 0
    resets: int = 0
    refused: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """How often each kind of work is done, in times a second; 0: never."""

    sends: float
    refreshes: float
    resets: float


def work_for(
    trial: Trial, devices: Sequence[str], jids: Sequence[str], seconds: float, pace: Pace, say: Callable[[str], None]
) -> Work:
    """Work at a steady pace and look at what is taken meanwhile."""
    work = Work()
    watch = DaemonWatch(trial)
    senders = itertools.cycle(zip(devices, recipients(len(devices)), strict=True))
    refreshed, struck = itertools.cycle(devices), itertools.cycle(reversed(jids))
    began = time.monotonic()
    next_sample = 0.0
    with Fleet(trial.home.path, timeout=60) as fleet:
        while (elapsed := time.monotonic() - began) < seconds:
            if elapsed >= next_sample:
                next_sample += _SAMPLE_SECONDS
                work.samples.append(Sample.of(watch, elapsed))
                say(f"{work.samples[-1].product_mb} MB, {work.sent} sent, {work.refreshes} refreshes")
            due = round(elapsed * pace.sends) - work.sent
            if due > 0:
                batch = [SendMessage(*next(senders), f"soak {work.sent + number}") for number in range(due)]
                answers = fleet.send_batch(batch)
                work.refused += sum(not isinstance(answer, MessageAccepted) for answer in answers)
                work.sent += due
            for _ in range(round(elapsed * pace.refreshes) - work.refreshes):
                with contextlib.suppress(SalamanderError):  # one that is being refreshed already says so
                    fleet.tell_device(next(refreshed), "refresh")
                work.refreshes += 1
            for _ in range(round(elapsed * pace.resets) - work.resets):
                trial.simulator.fault("reset", next(struck))
                work.resets += 1
            time.sleep(0.2)
    watch.close()
    return work


def await_finished(trial: Trial) -> dict[str, int]:
    """Wait until every message is finished, as far as it will be, and return how many stand in each state."""
    deadline = time.monotonic() + _END_SECONDS
    with Fleet(trial.home.path, timeout=60) as fleet:
        while set(counts := fleet.message_counts()) - FINAL_STATES - {"in_doubt"} and time.monotonic() < deadline:
            time.sleep(1.0)
    return counts


def doubled(trial: Trial) -> int:
    """Return how many messages a recipient's phone shows more than once."""
    boxes = trial.simulator.all_inboxes().items()
    shown = Counter((number, row["text"]) for number, box in boxes for row in box)
    return sum(times > 1 for times in shown.values())


def growth(samples: Sequence[Sample], warm_up_seconds: float) -> dict[str, dict[str, float]]:
    """Return, for each figure, the median of the first and of the last fifth after the warm-up, and the growth."""
    warm = [sample for sample in samples if sample.seconds >= warm_up_seconds] or list(samples)
    part = max(1, len(warm) // 5)
    found: dict[str, dict[str, Any]] = {}
    for name in ("product_mb", "shards_mb", "postgres_mb", "threads", "descriptors", "connections"):
        first, last = (
            statistics.median(getattr(sample, name) for sample in some) for some in (warm[:part], warm[-part:])
        )
        found[name] = {"first": first, "last": last, "percent": round(100 * (last - first) / first, 2) if first else 0}
    return found
