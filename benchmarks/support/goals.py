"""The goals that the figures are held against, each read from the benchmarks' JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: The benchmarks' JSON by the names of their files.
Reports = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Goal:
    """One figure, what it shall be, and what one would have without Salamander.

    Attributes:
        plain: the alternative as it was measured elsewhere, or a function that reads it from the same runs.
        measure: reads the figure; it raises ``KeyError`` where that was not measured.
        limit: the figure must not be above it (with ``at_least``: not below it).
    """

    figure: str
    unit: str
    limit: float
    measure: Callable[[Reports], float]
    plain: str | Callable[[Reports], str]
    at_least: bool = False

    @property
    def goal(self) -> str:
        """The goal in words."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g} {self.unit}".strip()

    def reached(self, value: float) -> bool:
        """Return whether ``value`` reaches the goal."""
        return value >= self.limit if self.at_least else value <= self.limit


def _fullest_second(reports: Reports) -> float:
    peak = _healed("all sockets dropped by the server")(reports)["peak_connects_per_second"]
    return float(100 * peak / reports["heal"]["budget_per_second"])


def _fleet(reports: Reports) -> dict[str, Any]:
    return reports["fleet-3000"]


def _healed(kind: str) -> Callable[[Reports], dict[str, Any]]:
    def find(reports: Reports) -> dict[str, Any]:
        runs = [each for each in reports.values() if each["benchmark"] == "heal" and kind in each["healed"]]
        if not runs:
            raise KeyError(kind)
        newest = max(runs, key=lambda report: str(report["machine"]["at"]))
        found: dict[str, Any] = newest["healed"][kind]
        if found["lost"]:
            raise KeyError(kind)
        return found

    return find


def _accepts(way: str) -> Callable[[Reports], float]:
    return lambda reports: float(reports["throughput"]["accepting"][way]["per_second"])


def _plain_memory(reports: Reports) -> str:
    plain = _fleet(reports)["plain"]
    return (
        f"{plain['a_process_each']['mb_per_client']:.1f} MB (a process a number),"
        f" {plain['one_process']['mb_per_client']:.2f} MB (bare clients in one process)"
    )


def _plain_idle(reports: Reports) -> str:
    percent = 3000 * _fleet(reports)["plain"]["one_process"]["idle_cpu_percent_per_client"]
    return f"{percent:.0f} % (bare clients in one process, reckoned for 3000)"


def _plain_half_open(reports: Reports) -> str:
    found = reports["heal"]["plain"].get("half-open socket")
    return f"{found['longest']:.0f} s" if found and not found["lost"] else "203 s (measured once, the library alone)"


GOALS: tuple[Goal, ...] = (
    Goal(
        "memory per WhatsApp device, whole product, 3000 online",
        "MB",
        0.75,
        lambda reports: float(_fleet(reports)["mb_per_device"]),
        _plain_memory,
    ),
    Goal(
        "cold start of 3000 stored sessions, through PgBouncer",
        "s",
        45.0,
        lambda reports: float(_fleet(reports)["start_seconds"]),
        "39 s (bare clients, no product)",
    ),
    Goal(
        "cold start of 3000 stored sessions, embedded server alone",
        "s",
        120.0,
        lambda reports: float(reports["fleet-3000-embedded"]["start_seconds"]),
        "101 s (bare clients, no product)",
    ),
    Goal(
        "one shard SIGKILLed: its devices online again, p99",
        "s",
        10.0,
        lambda reports: float(_healed("a shard SIGKILLed")(reports)["p99"]),
        "never",
    ),
    Goal(
        "half-open socket found and healed, p99",
        "s",
        45.0,
        lambda reports: float(_healed("half-open socket")(reports)["p99"]),
        _plain_half_open,
    ),
    Goal(
        "server drops all sockets at once: all online again",
        "s",
        60.0,
        lambda reports: float(_healed("all sockets dropped by the server")(reports)["longest"]),
        "19–49 s, all at once, no budget",
    ),
    Goal(
        "… and the connects of the fullest second meanwhile",
        "% of the budget",
        100.0,
        _fullest_second,
        "no bound",
    ),
    Goal(
        "idle CPU of 3000 online devices",
        "% of a core",
        30.0,
        lambda reports: float(_fleet(reports)["idle_cpu_percent"]),
        _plain_idle,
    ),
    Goal(
        "durable accepts at the router, batches of 500",
        "a second",
        10_000.0,
        _accepts("one caller, batches of 500"),
        "procrastinate 5200/s",
        at_least=True,
    ),
    Goal(
        "durable accepts at the router, single caller",
        "a second",
        700.0,
        _accepts("one caller, one by one"),
        "procrastinate 519/s",
        at_least=True,
    ),
    Goal(
        "send rate of a shard against plain neonize",
        "%",
        90.0,
        lambda reports: 100.0 * float(reports["throughput"]["shard"]["share"]),
        "100 %",
        at_least=True,
    ),
    Goal(
        "PostgreSQL connections, 3000 devices, most ever",
        "",
        100.0,
        lambda reports: float(max(_fleet(reports)["database_connections"].values())),
        "~6000, and two more with each refresh",
    ),
    Goal(
        "PostgreSQL connections after the soak's refreshes",
        "",
        100.0,
        lambda reports: float(max(sample["connections"] for sample in reports["soak"]["samples"])),
        "two more with each refresh",
    ),
    Goal(
        "growth of memory in the soak, after the warm-up",
        "%",
        5.0,
        lambda reports: float(reports["soak"]["growth"]["product_mb"]["percent"]),
        "not measured",
    ),
    Goal(
        "events that a receiver which fails at random never gets",
        "",
        0.0,
        lambda reports: float(reports["webhooks"]["told"]["lost"]),
        lambda reports: (
            f"{reports['webhooks']['plain']['lost']:,} of {reports['webhooks']['plain']['due']:,}"
            " (a callback with three retries)"
        ),
    ),
)
