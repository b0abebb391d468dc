#!/usr/bin/env python3
"""The fleet benchmark: what thousands of devices cost, from a cold start with stored sessions to idling online.

    benchmarks/fleet.py --whatsapp 1000 --platform 300 --json

It seeds the sessions, starts a daemon with the loopback simulator, waits until every device is online, lets it idle,
and then runs plain neonize on sessions of the same kind, on the same machine, for comparison. The very first start of
linked devices, which uploads their one-time keys, is measured apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.fleet_trial import FleetMeasure, bring_up, measure_fleet
from benchmarks.support.plain import ground, measure_plain
from benchmarks.support.seeding import make_links, seed_home


def main() -> int:
    """Run, print the table, and return the exit status: 0 when every device came online."""
    bench = Benchmark("fleet", __doc__)
    bench.parser.add_argument("--whatsapp", type=int, default=100, help="WhatsApp devices (default: 100)")
    bench.parser.add_argument("--platform", type=int, default=0, help="platform devices besides (default: 0)")
    bench.parser.add_argument("--idle", type=float, default=60.0, help="seconds the fleet idles while it is watched")
    bench.parser.add_argument("--longest", type=float, default=600.0, help="seconds until the start is given up")
    bench.parser.add_argument("--plain", type=int, default=4, help="plain processes to compare with (0: none)")
    bench.parser.add_argument("--loop", type=int, default=100, help="clients of the one plain process (0: none)")
    bench.parser.add_argument("--first-start", type=int, default=0, help="devices that start for the very first time")
    bench.parser.add_argument("--variant", default="", help="what to add to the name of the files")
    arguments = bench.parse()
    first_start = _first_start(bench, arguments.first_start) if arguments.first_start else {}
    with bench.trial() as trial:
        bench.say(f"making {arguments.whatsapp} sessions")
        links = list(make_links("shop", arguments.whatsapp))
        plain_links = list(make_links("plain", arguments.plain + arguments.loop, first=len(links)))
        seed_home(trial.home, links, plain_links, arguments.platform)
        bench.say("starting")
        measure = measure_fleet(trial, arguments.whatsapp, arguments.idle, arguments.longest, bench.say)
        bench.failed = measure.online < arguments.whatsapp
        comparison = {}
        if plain_links:
            own, looped = plain_links[: arguments.plain], plain_links[arguments.plain :]
            idle = min(arguments.idle, 30.0)
            with ground(trial.home) as orders:
                if own:
                    bench.say("plain neonize, one process a number")
                    each = measure_plain(orders, own, each_its_process=True, idle_seconds=idle)
                    comparison["a_process_each"] = each.as_dict()
                if looped:
                    bench.say("plain neonize, one process with a loop")
                    together = measure_plain(orders, looped, each_its_process=False, idle_seconds=idle)
                    comparison["one_process"] = together.as_dict()
    figures = {
        "whatsapp": arguments.whatsapp,
        "platform": arguments.platform,
        "settings": bench.settings,
        **measure.as_dict(),
        "first_start": first_start,
        "plain": comparison,
    }
    variant = "-".join(filter(None, (str(arguments.whatsapp), arguments.variant)))
    return bench.finish(figures, ("what", ""), list(_lines(figures, measure).items()), variant)


def _first_start(bench: Benchmark, devices: int) -> dict[str, Any]:
    """Start devices that have never logged in, which upload their one-time keys."""
    with bench.trial() as trial:
        seed_home(trial.home, list(make_links("shop", devices, pre_keys=0)))
        bench.say(f"the very first start of {devices} devices")
        measure = bring_up(trial, devices, 600)
        uploads = int(trial.simulator.stats().get("pre_key_uploads", 0))
    return {"devices": devices, "seconds": round(measure.start_seconds, 2), "uploads": uploads}


def _lines(figures: dict[str, Any], measure: FleetMeasure) -> dict[str, str]:
    lines = {
        "WhatsApp devices online": f"{measure.online} of {figures['whatsapp']}",
        "platform devices": str(figures["platform"]),
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
    if first := figures["first_start"]:
        lines[f"very first start of {first['devices']}"] = f"{first['seconds']:.1f} s, {first['uploads']} uploads"
    for name, plain in figures["plain"].items():
        lines[f"plain neonize, {name.replace('_', ' ')}"] = (
            f"{plain['mb_per_client']:.2f} MB, {plain['idle_cpu_percent_per_client']:.3f} % of one core a client,"
            f" {plain['clients'] / plain['seconds']:.1f} started a second"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
