"""A gateway under measurement: the daemon around it, the bare handler beside it, and those who listen to its events."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests

from actors.fleet import Fleet
from benchmarks.support.bench import percentile
from benchmarks.support.consumption import consumption_of
from benchmarks.support.http_load import Load, run_load
from benchmarks.support.trial import PROJECT, Trial, TrialFailed, until
from config.settings import load_settings
from storage import events
from storage.database import SALAMANDER_DATABASE, connect, database_url
from storage.devices import by_name
from storage.embedded import embedded_url
from storage.events import Event

DEVICE = "bench"


class GatewayTrial:
    """A daemon with one paused platform device, whose messages wait for ever, and a key."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        started = trial.command("start")
        if started.returncode != 0:
            raise TrialFailed(f"start: {started.stderr.strip()}")
        self._url = database_url(trial.home, load_settings(trial.home))
        with Fleet(trial.home.path) as fleet:
            fleet.add_device(DEVICE, platform="whacenter", credentials={"device_id": "invented"})
            fleet.tell_device(DEVICE, "pause")
            self._device_id = fleet.device(DEVICE).id
        made = json.loads(trial.command("key", "create", "--scope", "admin", "--per-minute", "0", "--json").stdout)
        self.key = str(made["key"])
        status = json.loads(trial.command("status", "--json").stdout)
        self.base_url = str(status["gateway"]["url"])
        self.port = int(self.base_url.rpartition(":")[2])
        until(lambda: requests.get(f"{self.base_url}/readyz", timeout=5).ok, 30, "the gateway is ready")

    @contextlib.contextmanager
    def bare(self, *, same_row: bool = False) -> Iterator[int]:
        """Run the bare handler on the same PostgreSQL, without PgBouncer between; yield its port.

        ``same_row``: it writes what the router writes, by the same statement.
        """
        command = [sys.executable, "-m", "benchmarks.support.bare_handler"]
        if same_row:
            command.append(str(self._device_id))
        with subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(embedded_url(self._trial.home.postgres, SALAMANDER_DATABASE) + "\n")
            process.stdin.flush()
            port = int(process.stdout.readline())
            time.sleep(1.0)
            try:
                yield port
            finally:
                process.kill()

    def compare(self, bare: int, same_row: int, connections: int, seconds: float, batch: int) -> dict[str, Any]:
        """Measure the bare handler, the one that writes our row, the gateway, and the bare handler again."""
        ports = (bare, same_row, self.port, bare)
        rounds = [run_load(Load(port, connections, seconds, batch, self.key)) for port in ports]
        rates = [each["messages_per_second"] for each in rounds]
        return {
            "connections": connections,
            "batch": batch,
            "bare": [rounds[0], rounds[3]],
            "same_row": rounds[1],
            "gateway": rounds[2],
            "share": round(rates[2] / statistics.mean((rates[0], rates[3])), 3),
            "share_of_same_row": round(rates[2] / rates[1], 3),
        }

    def at_rate(self, port: int, rate: float, connections: int, seconds: float) -> dict[str, Any]:
        """Measure latencies at a rate of single messages a second."""
        return {"rate": round(rate), **run_load(Load(port, connections, seconds, 0, self.key, rate))}

    def memory_mb(self) -> float:
        """Return the gateway's memory that is its own alone."""
        return round(consumption_of(each.pid for each in self._trial.processes("gateway")).uss_mb, 1)

    def event_delays(self, listeners: int, wanted: int) -> dict[str, Any]:
        """Write events and measure how long each takes from its commit to each of its listeners."""
        committed: dict[str, float] = {}
        delays: list[float] = []
        ready = threading.Barrier(listeners + 1)
        threads = [
            threading.Thread(target=self._listen, args=(committed, delays, ready, wanted), daemon=True)
            for _ in range(listeners)
        ]
        for thread in threads:
            thread.start()
        ready.wait(60)
        with connect(self._url) as connection:
            device = by_name(connection, DEVICE)
            for number in range(wanted):
                name = f"bench-{time.time_ns()}-{number}"
                with connection.transaction():
                    events.record(connection, device.id, [Event("bench", name, {"name": name})])
                committed[name] = time.monotonic()
                time.sleep(0.037)
        for thread in threads:
            thread.join(60)
        return {
            "listeners": listeners,
            "events": wanted,
            "heard": len(delays),
            "p50_ms": round(percentile(delays, 0.5) * 1000, 1),
            "p99_ms": round(percentile(delays, 0.99) * 1000, 1),
        }

    def _listen(self, committed: dict[str, float], delays: list[float], ready: threading.Barrier, wanted: int) -> None:
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "text/event-stream"}
        with requests.get(f"{self.base_url}/v1/events?kind=bench", headers=headers, stream=True, timeout=60) as reply:
            heard = 0
            for line in reply.iter_lines(chunk_size=1):
                if line.startswith(b":"):
                    ready.wait(60)  # the place from which it listens
                elif line.startswith(b"data: "):
                    now = time.monotonic()
                    name = json.loads(line[6:])["body"]["name"]
                    while name not in committed:
                        time.sleep(0.0005)
                    delays.append(max(0.0, now - committed[name]))
                    heard += 1
                    if heard == wanted:
                        return
