"""Metrics from readings: names, labels, help. Pure.

No label ever holds a number, a message's id or a device's name: a fleet of any size has as many series as it has
platforms, states, causes, endpoints (32 at most) and processes.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from storage.metrics import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from gateway.metrics.processes import Use
    from storage.metrics import Key, Reading

#: What is told with nothing to tell, too, so that a panel shows 0 and an alert can tell 0 from nothing.
_UNFINISHED = ("queued", "sending", "in_doubt")
_TIMES = {
    "sent": "Seconds from acceptance (or from when it was to be sent) until the provider or WhatsApp took the message.",
    "delivered": "Seconds from acceptance (or from when it was to be sent) until the message was delivered.",
}


def of_reading(reading: Reading | None, now: datetime) -> Iterator[Metric]:
    """Yield what PostgreSQL knows; None: it is away."""
    yield _gauge(
        "salamander_database_up", "Whether PostgreSQL answers the gateway.", [((), float(reading is not None))]
    )
    if reading is None:
        return
    yield _gauge(
        "salamander_devices",
        "Devices by platform and state.",
        [((row["platform"] or "whatsapp", row["state"]), row["devices"]) for row in reading.devices],
        "platform",
        "state",
    )
    yield from _of_totals(reading.totals)
    yield from _of_outbox(reading, now)
    yield _gauge(
        "salamander_breakers",
        "Circuit breakers that are not closed: of whole providers, and of accounts.",
        [((row["platform"], row["scope"], row["state"]), row["breakers"]) for row in reading.breakers],
        "platform",
        "scope",
        "state",
    )
    yield _gauge(
        "salamander_database_connections",
        "Connections to Salamander's and whatsmeow's databases, by state.",
        [((row["database"], row["state"]), row["connections"]) for row in reading.connections],
        "database",
        "state",
    )
    yield _gauge(
        "salamander_database_connections_limit",
        "Connections that the PostgreSQL server takes.",
        [((), reading.connection_limit)],
    )
    yield from _of_deliveries(reading, now)


def _of_totals(totals: dict[Key, float]) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "salamander_messages",
        "Messages by what became of them: each state they came into, and how often they were accepted.",
        labels=("platform", "outcome"),
    )
    restarts = CounterMetricFamily(
        "salamander_restarts", "Restarts and refreshes, by what was restarted and why.", labels=("what", "cause")
    )
    for (metric, platform, label), value in sorted(totals.items()):
        if metric == "messages":
            messages.add_metric((platform, label), value)
        elif metric == "restarts":
            restarts.add_metric((platform, label), value)
    yield messages
    yield restarts
    for outcome, words in _TIMES.items():
        yield _histogram(f"salamander_message_seconds_to_{outcome}", words, f"seconds_to_{outcome}", totals)


def _histogram(name: str, words: str, metric: str, totals: dict[Key, float]) -> Metric:
    family = HistogramMetricFamily(name, words, labels=("platform",))
    counts: dict[str, dict[int, float]] = defaultdict(dict)
    for (found, platform, label), value in totals.items():
        if found == metric:
            counts[platform][int(label)] = value
    for platform, buckets in sorted(counts.items()):
        running, cumulated = 0.0, []
        for number, bound in enumerate((*map(str, BOUNDS), "+Inf")):
            running += buckets.get(number, 0.0)
            cumulated.append((bound, running))
        family.add_metric((platform,), cumulated, totals.get((f"{metric}_sum", platform, ""), 0.0))
    return family


def _of_outbox(reading: Reading, now: datetime) -> Iterator[Metric]:
    rows = {row["state"]: row for row in reading.outbox}
    yield _gauge(
        "salamander_outbox_messages",
        "Messages that are unfinished, by state.",
        [((state,), rows[state]["messages"] if state in rows else 0) for state in _UNFINISHED],
        "state",
    )
    yield _gauge(
        "salamander_outbox_oldest_seconds",
        "Age of the oldest message that is queued and could go, is being sent, or is in doubt; 0: there is none.",
        [((state,), _age(rows[state]["oldest"] if state in rows else None, now)) for state in _UNFINISHED],
        "state",
    )


def _of_deliveries(reading: Reading, now: datetime) -> Iterator[Metric]:
    counts = reading.deliveries.items()
    yield _gauge(
        "salamander_webhook_deliveries",
        "Webhook deliveries that wait, and dead letters, by endpoint; counted to 100000.",
        [((str(number), state), row[state]) for number, row in counts for state in ("pending", "dead")],
        "endpoint",
        "state",
    )
    yield _gauge(
        "salamander_webhook_oldest_seconds",
        "Age of the oldest webhook delivery that waits, by endpoint that is switched on; 0: there is none.",
        [((str(number),), _age(row["oldest"], now)) for number, row in counts if row["enabled"]],
        "endpoint",
    )


def of_processes(uses: Sequence[Use]) -> Iterator[Metric]:
    """Yield what the daemon's processes use."""
    yield _gauge(
        "salamander_process_memory_bytes",
        "Resident memory of the daemon's processes, by name (shard-1, router …).",
        [((use.name,), use.memory_bytes) for use in uses],
        "process",
    )
    yield _gauge(
        "salamander_process_descriptors",
        "Open file descriptors of the daemon's processes.",
        [((use.name,), use.descriptors) for use in uses],
        "process",
    )
    seconds = CounterMetricFamily(
        "salamander_process_cpu_seconds", "Processor time that the daemon's processes used.", labels=("process",)
    )
    for use in uses:
        seconds.add_metric((use.name,), use.cpu_seconds)
    yield seconds


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def _gauge(name: str, words: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
