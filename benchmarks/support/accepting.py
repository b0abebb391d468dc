"""How many messages a second the router accepts, each committed before the answer: singly, in batches, from a file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.support.bench import percentile
from benchmarks.support.trial import PROJECT, Trial, TrialFailed
from storage.database import connect, database_url

_BATCH = 500


def measure_accepting(trial: Trial, device: str, seconds: float, csv_lines: int) -> dict[str, Any]:
    """Return accepts a second of each way; ``device`` is paused, so that nothing is sent meanwhile."""
    return {
        "one caller, one by one": _called(trial, device, seconds, callers=1, batch=0),
        "two callers, one by one": _called(trial, device, seconds, callers=2, batch=0),
        f"one caller, batches of {_BATCH}": _called(trial, device, seconds, callers=1, batch=_BATCH),
        f"two callers, batches of {_BATCH}": _called(trial, device, seconds, callers=2, batch=_BATCH),
        f"a CSV file of {csv_lines} lines": _from_file(trial, device, csv_lines),
        "plain INSERT, one by one": _inserted(trial, seconds, batch=1),
        f"plain INSERT, {_BATCH} at once": _inserted(trial, seconds, batch=_BATCH),
    }


def _called(trial: Trial, device: str, seconds: float, *, callers: int, batch: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.support.caller", str(trial.home.path), device]
    command += ["--seconds", str(seconds), "--batch", str(batch)]
    running = [
        subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(callers)
    ]
    told = []
    for process in running:
        output, _ = process.communicate(timeout=seconds + 120)
        if process.returncode != 0:
            raise TrialFailed(f"a caller failed with exit status {process.returncode}")
        told.append(json.loads(output))
    taken = [each for caller in told for each in caller["taken"]]
    return {
        "per_second": round(sum(caller["accepted"] / caller["seconds"] for caller in told), 1),
        "call_p50_ms": round(1000 * percentile(taken, 0.5), 2),
        "call_p99_ms": round(1000 * percentile(taken, 0.99), 2),
    }


def _from_file(trial: Trial, device: str, lines: int) -> dict[str, Any]:
    path = trial.home.path / "messages.csv"
    rows = (f"{device},60198887777,Your order {number} is ready.\n" for number in range(lines))
    path.write_text("device,to,text\n" + "".join(rows), encoding="utf-8")
    began = time.monotonic()
    finished = trial.command("send", "--csv", str(path))
    seconds = time.monotonic() - began
    if finished.returncode != 0:
        raise TrialFailed(f"send --csv: {finished.stderr.strip()}")
    return {"per_second": round(lines / seconds, 1), "seconds": round(seconds, 2)}


def _inserted(trial: Trial, seconds: float, *, batch: int) -> dict[str, Any]:
    """Insert and commit into a bare table on the same server, without anything of ours."""
    with connect(database_url(trial.home, trial.settings)) as connection:
        connection.execute("create table if not exists plain_insert (id bigserial primary key, to_ text, body text)")
        statement = "insert into plain_insert (to_, body) select '60198887777', b from unnest(%s::text[]) as b"
        began, inserted = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            connection.execute(statement, [["Your order is ready."] * batch])
            inserted += batch
        elapsed = time.monotonic() - began
        connection.execute("drop table plain_insert")
    return {"per_second": round(inserted / elapsed, 1)}
