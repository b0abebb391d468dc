"""One cold start of a seeded fleet and a time of idling, measured from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.support.consumption import Consumption
from benchmarks.support.daemon_watch import DaemonWatch
from benchmarks.support.seeding import point_platform_devices
from benchmarks.support.trial import Trial, TrialFailed
from config.errors import StorageUnavailable
from config.settings import load_settings
from simulator.addresses import INFO_FILE
from storage.database import connect, database_url

#: How often a starting fleet is looked at, in seconds.
_LOOK_SECONDS = 0.5
#: How long a fleet settles after its last device came online: the library's own queries, and connections that idle out.
_SETTLE_SECONDS = 12.0
#: Groups that are not the product.
_NOT_OURS = frozenset({"simulator", "postgres"})


@dataclass
class FleetMeasure:
    """What one fleet took.

    Attributes:
        curve: (seconds since the start, devices online) while it came up.
        groups: what each group of processes took after settling.
        start_cpu, idle_cpu: percent of one core by group, during the start and while idling.
    """

    devices: int
    online: int = 0
    simulator_online: int = 0
    start_seconds: float = 0.0
    ready_seconds: float = 0.0
    curve: list[tuple[float, int]] = field(default_factory=list)
    connections_peak: int = 0
    connections_idle: int = 0
    groups: dict[str, Consumption] = field(default_factory=dict)
    start_cpu_seconds: dict[str, float] = field(default_factory=dict)
    idle_cpu: dict[str, float] = field(default_factory=dict)
    idle_commits_per_second: float = 0.0
    peak_connects_per_second: int = 0
    log_warnings: int = 0

    @property
    def ours(self) -> Consumption:
        """What the product takes: every process but PostgreSQL's and the simulator."""
        return sum((each for group, each in self.groups.items() if group not in _NOT_OURS), Consumption())

    @property
    def mb_per_device(self) -> float:
        """Memory (PSS) of the product divided by its WhatsApp devices."""
        return self.ours.pss_mb / max(1, self.devices)

    @property
    def mb_per_device_with_postgres(self) -> float:
        """The same with PostgreSQL's memory."""
        return (self.ours.pss_mb + self.groups.get("postgres", Consumption()).pss_mb) / max(1, self.devices)

    @property
    def idle_cpu_percent(self) -> float:
        """The product's CPU time while idling, in percent of one core."""
        return sum(percent for group, percent in self.idle_cpu.items() if group not in _NOT_OURS)

    @property
    def threads(self) -> int:
        """Threads of the product."""
        return self.ours.threads

    @property
    def descriptors(self) -> int:
        """Open descriptors of the product."""
        return self.ours.descriptors

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "online": self.online,
            "simulator_online": self.simulator_online,
            "mb_per_device": round(self.mb_per_device, 4),
            "mb_per_device_with_postgres": round(self.mb_per_device_with_postgres, 4),
            "start_seconds": round(self.start_seconds, 2),
            "ready_seconds": round(self.ready_seconds, 2),
            "idle_cpu_percent": round(self.idle_cpu_percent, 2),
            "idle_cpu_percent_by_group": {group: round(each, 2) for group, each in sorted(self.idle_cpu.items())},
            "idle_commits_per_second": round(self.idle_commits_per_second, 2),
            "database_connections": {"peak": self.connections_peak, "idle": self.connections_idle},
            "threads": self.threads,
            "descriptors": self.descriptors,
            "start_cpu_seconds_by_group": {
                group: round(each, 2) for group, each in sorted(self.start_cpu_seconds.items())
            },
            "peak_connects_per_second": self.peak_connects_per_second,
            "log_warnings": self.log_warnings,
            "groups": {group: each.as_dict() for group, each in sorted(self.groups.items())},
            "start_curve": [(round(seconds, 1), online) for seconds, online in self.curve],
        }


def measure_fleet(
    trial: Trial, devices: int, idle_seconds: float, longest_seconds: float, say: Callable[[str], None]
) -> FleetMeasure:
    """Start the daemon on a seeded home, wait for its devices, let it idle, stop it; return what it took.

    Raises:
        TrialFailed: the daemon did not start. A fleet that stays incomplete is measured as it is.
    """
    measure = FleetMeasure(devices)
    watch = DaemonWatch(trial)
    try:
        _come_up(trial, watch, measure, longest_seconds)
        say(f"{measure.online} online after {measure.start_seconds:.1f} s; settling")
        measure.start_cpu_seconds = watch.moment(watch.pids()).cpu
        time.sleep(_SETTLE_SECONDS)
        _idle(watch, measure, idle_seconds)
        stats = trial.simulator.stats()
        measure.simulator_online = stats["online"]
        measure.peak_connects_per_second = stats.get("peak_connects_per_second", 0)
        lines = trial.home.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        measure.log_warnings = sum('"level": "warning"' in line or '"level": "error"' in line for line in lines)
        say(f"idle: {measure.idle_cpu_percent:.1f} % of one core, {measure.mb_per_device:.3f} MB a device")
    finally:
        watch.close()
        trial.stop()
    return measure


def bring_up(trial: Trial, devices: int, longest_seconds: float) -> FleetMeasure:
    """Start the daemon on a seeded home and wait for all its WhatsApp devices; return how that went.

    Raises:
        TrialFailed: not all were online in time.
    """
    measure = FleetMeasure(devices)
    watch = DaemonWatch(trial)
    try:
        _come_up(trial, watch, measure, longest_seconds)
    finally:
        watch.close()
    if measure.online < devices:
        raise TrialFailed(f"{measure.online} of {devices} devices came online within {longest_seconds:.0f} s")
    return measure


def _come_up(trial: Trial, watch: DaemonWatch, measure: FleetMeasure, longest_seconds: float) -> None:
    began, moment = time.monotonic(), datetime.now(UTC)
    problems: list[str] = []

    def start() -> None:
        try:
            trial.start()
            measure.ready_seconds = time.monotonic() - began
        except TrialFailed as failed:
            problems.append(str(failed))

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    pointed = False
    while (elapsed := time.monotonic() - began) < longest_seconds:
        if problems:
            raise TrialFailed(problems[0])
        measure.connections_peak = max(measure.connections_peak, watch.connections())
        measure.online = watch.online_since(moment)
        measure.curve.append((elapsed, measure.online))
        pointed = pointed or _point_platforms(trial)
        if measure.online >= measure.devices:
            break
        time.sleep(_LOOK_SECONDS)
    measure.start_seconds = time.monotonic() - began
    starting.join(max(1.0, longest_seconds - measure.start_seconds))


def _point_platforms(trial: Trial) -> bool:
    """Give the platform devices the address of the stand-ins, once these and the server are there; return whether."""
    if not (trial.home.simulator / INFO_FILE).exists():
        return False
    try:
        with connect(database_url(trial.home, load_settings(trial.home))) as connection:
            point_platform_devices(connection, trial.simulator.info()["platforms"])
    except StorageUnavailable:
        return False
    return True


def _idle(watch: DaemonWatch, measure: FleetMeasure, seconds: float) -> None:
    pids = watch.pids()
    before, began = watch.moment(pids), time.monotonic()
    most = 0
    while time.monotonic() - began < seconds:
        time.sleep(min(5.0, seconds))
        most = max(most, watch.connections())
    after, lasted = watch.moment(pids), time.monotonic() - began
    measure.connections_idle = most
    measure.idle_cpu = {group: 100 * (after.cpu[group] - before.cpu[group]) / lasted for group in before.cpu}
    measure.idle_commits_per_second = (after.commits - before.commits) / lasted
    measure.groups = watch.consumption()
