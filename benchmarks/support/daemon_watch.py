"""A daemon under measurement: which of its processes belong to the product, and what its database is doing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psutil
import psycopg

from benchmarks.support.consumption import Consumption, consumption_of, cpu_seconds_of
from benchmarks.support.trial import Trial
from config.errors import StorageUnavailable
from config.settings import load_settings
from storage.database import Connection, Row, connect, database_url

#: How the kernel names the product's processes (see ``name_process``), and the group each is shown under.
_GROUPS = {
    "salamander": "watchdog",
    "sal-admin": "admin",
    "sal-logger": "admin",
    "fleet": "fleet",
    "router": "router",
    "platform": "platforms",
    "shard": "shards",
    "gateway": "gateway",
    "housekeeper": "housekeeper",
    "pgbouncer": "pgbouncer",
    "quarantine": "shards",
}


@dataclass(frozen=True)
class Moment:
    """CPU seconds so far of each group, and transactions committed so far in both databases."""

    cpu: dict[str, float]
    commits: int


class DaemonWatch:
    """Looks at a running daemon from outside, as cheaply as it can."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._url = database_url(trial.home, load_settings(trial.home))
        self._connection: Connection | None = None

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- processes ---------------------------------------------------------------------------------------

    def pids(self) -> dict[str, list[int]]:
        """Return the pids of each group: those of the product, ``simulator`` and ``postgres``."""
        postgres = [process.pid for process in self._trial.postgres()]
        simulator = self._simulator()
        found: dict[str, list[int]] = {"simulator": [simulator] if simulator else [], "postgres": postgres}
        for process in self._trial.processes():
            if process.pid == simulator or process.pid in postgres:
                continue
            with contextlib.suppress(psutil.Error):
                group = _GROUPS.get(process.name().split("-")[0]) or _GROUPS.get(process.name(), "other")
                found.setdefault(group, []).append(process.pid)
        for watchdog in found.get("watchdog", []):
            with contextlib.suppress(psutil.Error):
                # Like PostgreSQL it carries no mark; unlike it, it is a part of the product.
                pooler = [each.pid for each in psutil.Process(watchdog).children() if each.name() == "pgbouncer"]
                found["pgbouncer"] = pooler
        return found

    def consumption(self) -> dict[str, Consumption]:
        """Return what each group takes now."""
        return {group: consumption_of(pids) for group, pids in self.pids().items()}

    def moment(self, pids: dict[str, list[int]]) -> Moment:
        """Return the counters whose differences are shares and rates."""
        cpu = {group: cpu_seconds_of(each) for group, each in pids.items() if group != "postgres"}
        cpu["postgres"] = self._postgres_seconds()
        row = self._look("select sum(xact_commit)::bigint as commits from pg_stat_database")
        return Moment(cpu, int(row["commits"]) if row else 0)

    def _postgres_seconds(self) -> float:
        """Return PostgreSQL's CPU time; its head has collected that of the children that ended."""
        processes = [process.pid for process in self._trial.postgres()]
        head = cpu_seconds_of(processes[:1], with_ended_children=True)
        return head + cpu_seconds_of(processes[1:])

    def _simulator(self) -> int:
        try:
            return int(json.loads((self._trial.home.simulator / "simulator.json").read_text(encoding="utf-8"))["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    # --- the database ------------------------------------------------------------------------------------

    def connections(self) -> int:
        """Return how many clients are connected to PostgreSQL, this one left out; 0 while it is away."""
        row = self._look(
            "select count(*) as connected from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return int(row["connected"]) if row else 0

    def online_since(self, moment: datetime) -> int:
        """Return how many WhatsApp devices are online and came online after ``moment``."""
        row = self._look(
            "select count(*) as online from device"
            " where platform is null and removed_at is null and state = 'online' and last_online_at > %s",
            [moment],
        )
        return int(row["online"]) if row else 0

    def _look(self, statement: str, values: Sequence[object] = ()) -> Row | None:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._url)
            return self._connection.execute(statement.encode(), values).fetchone()
        except (psycopg.Error, StorageUnavailable, OSError):
            self.close()
            return None
