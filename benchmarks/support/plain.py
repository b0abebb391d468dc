"""The comparison: plain neonize on the same sessions, server and machine, without Salamander."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.whatsapp.session import store_url_for_library
from benchmarks.support.consumption import Consumption, consumption_of, cpu_seconds_of
from benchmarks.support.seeding import Link
from benchmarks.support.trial import Trial, TrialFailed, until
from config.home import Home
from simulator.addresses import INFO_FILE
from storage.database import WHATSMEOW_DATABASE, ThroughPooler, whatsmeow_url
from storage.embedded import EmbeddedPostgres

_PROJECT = Path(__file__).resolve().parents[2]
#: How long a plain process may take until all its clients are connected, and how long it settles, in seconds.
_UP_SECONDS = 300.0
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Plain:
    """What plain clients took: for so many clients, in seconds and per client."""

    clients: int
    processes: int
    seconds: float
    mb_per_client: float
    uss_mb_per_client: float
    idle_cpu_percent_per_client: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures, rounded, for JSON."""
        return {name: round(value, 4) for name, value in vars(self).items()}


@contextlib.contextmanager
def ground(home: Home) -> Iterator[dict[str, Any]]:
    """Run the embedded server and the simulator of a home on which no daemon runs; yield orders for plain clients."""
    server = EmbeddedPostgres(home.postgres)
    server.start()
    simulator = subprocess.Popen(
        [sys.executable, "-m", "simulator", str(home.simulator)], cwd=_PROJECT, stdin=subprocess.DEVNULL
    )
    try:
        described = home.simulator / INFO_FILE
        until(described.exists, 30, "the simulator")
        info = json.loads(described.read_text(encoding="utf-8"))
        yield {**info, "store": store_url_for_library(server.url(WHATSMEOW_DATABASE))}
    finally:
        simulator.terminate()
        simulator.wait(20)
        server.stop()


def orders_beside(trial: Trial) -> dict[str, Any]:
    """Return orders for plain clients on the server and simulator of a running daemon, by its way to the server."""
    url = whatsmeow_url(trial.home, trial.settings)
    store = store_url_for_library(url, pooled=isinstance(url, ThroughPooler))
    return {**trial.simulator.info(), "store": store}


@contextlib.contextmanager
def plain_process(
    orders: dict[str, Any], jids: Sequence[str], *, each_its_process: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one process of plain clients; it is connected when this returns, and ends with the block."""
    with _process(orders, list(jids), one=each_its_process) as process:
        _await_event(process, "up")
        yield process


def let_send(process: subprocess.Popen[bytes], to: Sequence[str], texts: Sequence[str]) -> float:
    """Let each client of a loop send all texts to its recipient, and return the seconds it took."""
    assert process.stdin is not None
    process.stdin.write(json.dumps({"to": list(to), "texts": list(texts)}).encode() + b"\n")
    process.stdin.flush()
    return float(_await_event(process, "sent")["seconds"])


def measure_plain(
    orders: dict[str, Any], links: Sequence[Link], *, each_its_process: bool, idle_seconds: float
) -> Plain:
    """Connect the sessions of ``links`` by plain neonize, let them idle, and return what they took."""
    groups = [[link.jid] for link in links] if each_its_process else [[link.jid for link in links]]
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_process(orders, group, one=each_its_process)) for group in groups]
        for process in started:
            _await_event(process, "up")
        seconds = time.monotonic() - began
        time.sleep(_SETTLE_SECONDS)
        pids = [process.pid for process in started]
        before = cpu_seconds_of(pids)
        time.sleep(idle_seconds)
        idle = (cpu_seconds_of(pids) - before) / idle_seconds
        taken: Consumption = consumption_of(pids)
    count = len(links)
    return Plain(count, len(groups), seconds, taken.pss_mb / count, taken.uss_mb / count, 100 * idle / count)


@contextlib.contextmanager
def _process(orders: dict[str, Any], jids: list[str], *, one: bool) -> Iterator[subprocess.Popen[bytes]]:
    proxies = ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy")
    environment = {name: value for name, value in os.environ.items() if name not in proxies}
    environment |= {"HTTPS_PROXY": orders["proxy"], "SSL_CERT_FILE": orders["ca_file"], "SSL_CERT_DIR": "/nonexistent"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.support.plain_client"],
        cwd=_PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdin is not None
        wanted = {name: orders[name] for name in ("store", "noise_root", "proxy")}
        process.stdin.write(json.dumps({**wanted, "mode": "one" if one else "loop", "jids": jids}).encode() + b"\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def _await_event(process: subprocess.Popen[bytes], event: str) -> dict[str, Any]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _UP_SECONDS)
    told: dict[str, Any] = json.loads(process.stdout.readline() or b"{}") if ready else {}
    if told.get("event") != event:
        raise TrialFailed(f"a plain client is not {event} (exit status {process.poll()})")
    return told
