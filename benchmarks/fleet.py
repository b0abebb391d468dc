#!/usr/bin/env python3
"""The fleet benchmark: what thousands of devices cost, from a cold start with stored sessions to idling online.

    benchmarks/fleet.py --whatsapp 1000 --platform 300 --json

It seeds the sessions, starts a daemon with the loopback simulator, waits until every device is online, lets it idle,
and then runs plain neonize on sessions of the same kind, on the same machine, for comparison.
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

from benchmarks.support.fleet_trial import FleetMeasure, measure_fleet
from benchmarks.support.machine import describe_machine
from benchmarks.support.plain import ground, measure_plain
from benchmarks.support.seeding import make_links, seed_home
from benchmarks.support.trial import Trial
from config.home import Home


def main() -> int:
    """Run, print the table, and return the exit status: 0 when every device came online."""
    arguments = _arguments()
    machine = describe_machine()
    directory = Path(tempfile.mkdtemp(prefix="salamander-fleet-"))
    directory.chmod(0o755)  # PostgreSQL's account must pass through; the home inside is private
    began = time.monotonic()

    def say(text: str) -> None:
        if not arguments.quiet:
            print(f"{time.monotonic() - began:8.1f} s  {text}", file=sys.stderr, flush=True)

    trial = Trial(Home(directory / "home"), _settings(arguments.set))
    kept = True
    try:
        say(f"making {arguments.whatsapp} sessions")
        links = list(make_links("shop", arguments.whatsapp))
        plain_links = list(make_links("plain", arguments.plain + arguments.loop, first=len(links)))
        seed_home(trial.home, links, plain_links, arguments.platform)
        say("starting")
        measure = measure_fleet(trial, arguments.whatsapp, arguments.idle, arguments.longest, say)
        comparison = {}
        if plain_links:
            with ground(trial.home) as orders:
                say("plain neonize, one process a number")
                own, looped = plain_links[: arguments.plain], plain_links[arguments.plain :]
                idle = min(arguments.idle, 30.0)
                if own:
                    each = measure_plain(orders, own, each_its_process=True, idle_seconds=idle)
                    comparison["a_process_each"] = each.as_dict()
                say("plain neonize, one process with a loop")
                if looped:
                    together = measure_plain(orders, looped, each_its_process=False, idle_seconds=idle)
                    comparison["one_process"] = together.as_dict()
        kept = arguments.keep or measure.online < arguments.whatsapp
    finally:
        trial.stop()
        if kept:
            print(f"The home is kept: {directory / 'home'}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    report = {
        "benchmark": "fleet",
        "machine": machine,
        "whatsapp": arguments.whatsapp,
        "platform": arguments.platform,
        "settings": _settings(arguments.set),
        **measure.as_dict(),
        "plain": comparison,
    }
    _print(report, measure)
    if arguments.json:
        print(json.dumps(report), flush=True)
    return 0 if measure.online == arguments.whatsapp else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whatsapp", type=int, default=100, help="WhatsApp devices (default: 100)")
    parser.add_argument("--platform", type=int, default=0, help="platform devices besides (default: 0)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds the fleet idles while it is watched")
    parser.add_argument("--longest", type=float, default=600.0, help="seconds until the start is given up")
    parser.add_argument("--plain", type=int, default=4, help="plain processes to compare with (0: none)")
    parser.add_argument("--loop", type=int, default=100, help="clients of the one plain process (0: none)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the daemon")
    parser.add_argument("--keep", action="store_true", help="keep the home")
    parser.add_argument("--quiet", action="store_true", help="do not tell what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def _settings(given: list[str]) -> dict[str, Any]:
    pairs = (each.partition("=") for each in given)
    return {name: json.loads(value) for name, _, value in pairs}


def _print(report: dict[str, Any], measure: FleetMeasure) -> None:
    machine = report["machine"]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}")
    lines = {
        "WhatsApp devices online": f"{measure.online} of {report['whatsapp']}",
        "platform devices": report["platform"],
        "cold start to all online": f"{measure.start_seconds:.1f} s",
        "memory a device (product)": f"{measure.mb_per_device:.3f} MB",
        "memory a device (with PostgreSQL)": f"{measure.mb_per_device_with_postgres:.3f} MB",
        "idle CPU of the product": f"{measure.idle_cpu_percent:.1f} % of one core",
        "idle CPU of PostgreSQL": f"{measure.idle_cpu['postgres']:.1f} %",
        "idle CPU of the simulator": f"{measure.idle_cpu['simulator']:.1f} %",
        "transactions a second while idle": f"{measure.idle_commits_per_second:.1f}",
        "database connections, most and idle": f"{measure.connections_peak}, {measure.connections_idle}",
        "threads, descriptors": f"{measure.threads}, {measure.descriptors}",
    }
    for name, plain in report["plain"].items():
        lines[f"plain neonize, {name.replace('_', ' ')}"] = (
            f"{plain['mb_per_client']:.2f} MB, {plain['idle_cpu_percent_per_client']:.3f} % of one core a client"
        )
    width = max(map(len, lines))
    for label, value in lines.items():
        print(f"  {label:{width}}  {value}")


if __name__ == "__main__":
    sys.exit(main())
