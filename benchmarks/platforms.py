#!/usr/bin/env python3
"""The platforms' benchmark: messages a second from the router to the provider's answer, beside a plain thread pool.

    benchmarks/platforms.py --json

Each figure is measured three times in turn, on the same machine within the same minute: a pool of threads with plain
``requests`` sessions and nothing else, Salamander with as many accounts as the pool has threads, and the pool again
(their mean is compared with, since a machine is never equally busy for long). The provider takes 50 ms for an answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.machine import describe_machine
from benchmarks.support.platform_trial import Measure, measure_fleet, measure_plain
from benchmarks.support.trial import Trial, TrialFailed
from config.home import Home

#: The share of the plain pool's rate that the largest number of accounts shall reach.
_GOAL = 0.8
#: The PSS that the platform actor may gain from a fifth of the long run to its end.
_GAIN_MB = 10.0


def main() -> int:
    """Run, print the table, and return the exit status: 0 when every message was sent once."""
    arguments = _arguments()
    machine = describe_machine()
    directory = Path(tempfile.mkdtemp(prefix="salamander-platforms-"))
    directory.chmod(0o755)  # PostgreSQL's account must pass through; the home inside is private
    began = time.monotonic()

    def say(text: str) -> None:
        if not arguments.quiet:
            print(f"{time.monotonic() - began:8.1f} s  {text}", file=sys.stderr, flush=True)

    workers = max(arguments.accounts)
    trial = Trial(Home(directory / "home"), {"platform_workers": workers})
    rows: list[dict[str, Any]] = []
    memory: dict[str, Any] = {}
    failure = ""
    try:
        say("starting")
        started = trial.command("start")
        if started.returncode != 0:
            raise TrialFailed(f"start: {started.stderr.strip()}")
        for accounts in arguments.accounts:
            messages = max(100, round(accounts * arguments.seconds / arguments.latency))
            messages = min(messages, arguments.most)
            say(f"{accounts} accounts, {messages} messages: plain pool")
            first = measure_plain(accounts, messages, arguments.latency)
            say(f"  {first.per_second:.1f}/s; Salamander")
            measure = measure_fleet(trial, accounts, messages, arguments.latency, arguments.longest)
            say(f"  {measure.per_second:.1f}/s; plain pool again")
            second = measure_plain(accounts, messages, arguments.latency)
            rows.append(_row(measure, first, second))
            say(f"  {second.per_second:.1f}/s: {rows[-1]['share']:.0%} of the plain pool")
        if arguments.memory:
            say(f"{arguments.memory} messages for the memory")
            long = measure_fleet(trial, workers, arguments.memory, arguments.latency, arguments.longest)
            memory = _memory(long)
    except TrialFailed as error:
        failure = str(error)
        print(f"Failed: {failure}", file=sys.stderr)
    finally:
        trial.stop()
        if arguments.keep:
            print(f"The home is kept: {directory / 'home'}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    _print(machine, rows, memory)
    if arguments.json:
        report = {
            "benchmark": "platforms",
            "machine": machine,
            "latency": arguments.latency,
            "rows": rows,
            "goal_share": _GOAL,
            "goal_reached": bool(rows) and rows[-1]["share"] >= _GOAL,
            "memory": memory,
            "failure": failure,
        }
        print(json.dumps(report), flush=True)
    return 1 if failure else 0


def _row(measure: Measure, *pools: Measure) -> dict[str, Any]:
    plain = sum(pool.per_second for pool in pools) / len(pools)
    computing = sum(pool.cpu["pool"] for pool in pools) / sum(pool.messages for pool in pools)
    return {
        **measure.as_dict(),
        "plain_per_second": round(plain, 1),
        "share": round(measure.per_second / plain, 3),
        # On a busy machine these tell more than the rates: a message's CPU time hardly depends on the others.
        "cpu_ms_per_message": {
            **{name: round(1000 * seconds / measure.messages, 3) for name, seconds in measure.cpu.items()},
            "plain": round(1000 * computing, 3),
        },
    }


def _memory(long: Measure) -> dict[str, Any]:
    """Return the memory from a fifth of the run on (pools are filled by then) to its end."""
    after = [sample for sample in long.memory if sample.messages >= long.messages / 5]
    first, last = (after[0].pss_mb, after[-1].pss_mb) if after else (0.0, 0.0)
    return {
        **long.as_dict(),
        "first_mb": first,
        "last_mb": last,
        "gain_mb": round(last - first, 1),
        "flat": last - first <= _GAIN_MB,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 10, 100], help="numbers of accounts, rising")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each run should take at best")
    parser.add_argument("--most", type=int, default=8000, help="messages of one run, at most")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds the provider takes for an answer")
    parser.add_argument("--memory", type=int, default=0, help="messages of a long run that watches the memory")
    parser.add_argument("--longest", type=float, default=900.0, help="seconds until a run is given up")
    parser.add_argument("--keep", action="store_true", help="keep the home")
    parser.add_argument("--quiet", action="store_true", help="do not tell what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def _shown(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in milliseconds.items())


def _print(machine: dict[str, Any], rows: list[dict[str, Any]], memory: dict[str, Any]) -> None:
    print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}")
    print(
        f"  {'accounts':>8}  {'messages':>8}  {'Salamander':>12}  {'plain pool':>12}  {'share':>6}   CPU ms a message"
    )
    for row in rows:
        print(
            f"  {row['accounts']:8}  {row['messages']:8}  {row['per_second']:10.1f}/s"
            f"  {row['plain_per_second']:10.1f}/s  {row['share']:6.0%}"
            f"   {_shown(row['cpu_ms_per_message'])}"
        )
    if memory:
        print(
            f"  memory of the platform's process over {memory['messages']} messages: "
            f"{memory['first_mb']:.1f} MB to {memory['last_mb']:.1f} MB"
        )


if __name__ == "__main__":
    sys.exit(main())
