#!/usr/bin/env python3
"""The throughput benchmark: accepts a second, messages a second, and seconds to the recipient's decryption.

    benchmarks/throughput.py --whatsapp 3000 --json

Messages go by the real library to the simulator, whose phones decrypt them on the same cores. One shard is compared
with plain neonize in one process: as many clients, the same server, in turn within the same minutes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.accepting import measure_accepting
from benchmarks.support.bench import Benchmark
from benchmarks.support.daemon_watch import DaemonWatch
from benchmarks.support.fleet_trial import bring_up
from benchmarks.support.plain import let_send, orders_beside, plain_process
from benchmarks.support.seeding import Link, make_links, seed_home
from benchmarks.support.sending_trial import await_decrypted, flow_through, latency_at, recipients, steady_rate
from benchmarks.support.trial import Trial, until

#: Loads at which the time to decryption is measured, as shares of the rate that the fleet reached.
_LOADS = (0.1, 0.5, 0.9)


def main() -> int:
    """Measure, print the table, and return the exit status."""
    bench = Benchmark("throughput", __doc__)
    bench.parser.add_argument("--whatsapp", type=int, default=60, help="devices of the fleet (default: 60)")
    bench.parser.add_argument("--each", type=int, default=5, help="messages that each device sends in turn")
    bench.parser.add_argument("--shard", type=int, default=20, help="clients of one shard, and of plain neonize")
    bench.parser.add_argument("--shard-each", type=int, default=20, help="messages that each of these sends in a round")
    bench.parser.add_argument("--rounds", type=int, default=2, help="rounds of one shard and plain neonize in turn")
    bench.parser.add_argument("--seconds", type=float, default=4.0, help="how long each way of accepting is measured")
    bench.parser.add_argument("--load-seconds", type=float, default=10.0, help="how long each load lasts")
    bench.parser.add_argument("--csv-lines", type=int, default=5000, help="lines of the CSV file")
    arguments = bench.parse()
    links = list(make_links("shop", arguments.whatsapp))
    bench.say("one shard against plain neonize")
    comparison = _compare(bench, arguments.shard, arguments.shard_each, arguments.rounds)
    with bench.trial() as trial:
        seed_home(trial.home, links, platform_devices=1)
        bench.say(f"starting {len(links)} devices")
        bring_up(trial, len(links), 600)
        names = [link.name for link in links]
        bench.say("the first message of each device")
        first = flow_through(trial, names, 1, 600)
        bench.say(f"{first.per_second:.1f}/s; {arguments.each} more of each")
        again = flow_through(trial, names, arguments.each, 600)
        bench.say(f"{again.per_second:.1f}/s; under load")
        loads = {
            f"{load:.0%}": latency_at(trial, names, load * again.per_second, arguments.load_seconds) for load in _LOADS
        }
        bench.say("accepting")
        paused = _pause_one(trial, names[0])
        accepting = measure_accepting(trial, paused, arguments.seconds, arguments.csv_lines)
    figures = {
        "whatsapp": arguments.whatsapp,
        "accepting": accepting,
        "fleet": {"first": first.as_dict(), "again": again.as_dict()},
        "loads": loads,
        "shard": comparison,
    }
    return bench.finish(figures, ("what", "a second", "besides"), _rows(figures))


def _rows(figures: dict[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for way, told in figures["accepting"].items():
        more = f"p50 {told['call_p50_ms']} ms, p99 {told['call_p99_ms']} ms a call" if "call_p50_ms" in told else ""
        rows.append([f"accepted: {way}", told["per_second"], more])
    for way, told in figures["fleet"].items():
        cpu = ", ".join(f"{name} {value}" for name, value in told["cpu_ms_per_message"].items() if value >= 0.05)
        rows.append([f"through {figures['whatsapp']} devices, {way}", told["per_second"], f"CPU ms a message: {cpu}"])
    for load, told in figures["loads"].items():
        rows.append([f"to decryption at {load} load", told["per_second"], f"p50 {told['p50']} s, p99 {told['p99']} s"])
    shard = figures["shard"]
    rows.append([f"one shard of {shard['clients']}", shard["shard_per_second"], f"rounds {shard['shard_rounds']}"])
    rows.append(["plain neonize, one process", shard["plain_per_second"], f"rounds {shard['plain_rounds']}"])
    rows.append(["share", shard["share"], "of plain neonize's rate"])
    return rows


def _pause_one(trial: Trial, name: str) -> str:
    """Pause a device, so that what is accepted for it is not sent."""
    paused = trial.command("device", "pause", name)
    assert paused.returncode == 0, paused.stderr
    until(lambda: any(each.name == name and each.state == "paused" for each in trial.devices()), 30, "the pause")
    return name


def _compare(bench: Benchmark, clients: int, each: int, rounds: int) -> dict[str, Any]:
    """Let one shard and one plain process send in turn, as many clients each, to the same recipients."""
    ours = list(make_links("shop", clients))
    plain_links: list[Link] = list(make_links("plain", clients, first=clients))
    with bench.trial(max_shards=1) as trial:
        seed_home(trial.home, ours, plain_links)
        bring_up(trial, clients, 300)
        names, to = [link.name for link in ours], recipients(clients)
        with plain_process(orders_beside(trial), [link.jid for link in plain_links]) as plain:
            flow_through(trial, names, 1, 300)  # the sessions with the recipients are made by each first message
            let_send(plain, to, ["warm-up"])
            shard_rates: list[float] = []
            plain_rates: list[float] = []
            plain_cpu: dict[str, float] = {}
            for number in range(rounds):
                flow = flow_through(trial, names, each, 300)
                shard_rates.append(flow.per_second)
                rate, plain_cpu = _plain_rate(trial, plain, to, number, each)
                plain_rates.append(rate)
                bench.say(f"one shard {shard_rates[-1]:.1f}/s, plain neonize {plain_rates[-1]:.1f}/s")
    shard_rate, plain_rate = sum(shard_rates) / rounds, sum(plain_rates) / rounds
    return {
        "clients": clients,
        "shard_per_second": round(shard_rate, 1),
        "plain_per_second": round(plain_rate, 1),
        "share": round(shard_rate / plain_rate, 3),
        "shard_rounds": [round(rate, 1) for rate in shard_rates],
        "plain_rounds": [round(rate, 1) for rate in plain_rates],
        "cpu_ms_per_message": flow.as_dict()["cpu_ms_per_message"],
        "plain_cpu_ms_per_message": plain_cpu,
    }


def _plain_rate(trial: Trial, plain: Any, to: list[str], number: int, each: int) -> tuple[float, dict[str, float]]:
    """Return messages a second, and milliseconds of CPU time of each message by who took them."""
    mark = f"plain-{number}"
    watch = DaemonWatch(trial)
    pids = watch.pids()
    before, process = watch.moment(pids).cpu, psutil.Process(plain.pid)
    began = sum(process.cpu_times()[:2])
    let_send(plain, to, [f"{mark} {position}" for position in range(each)])
    moments = await_decrypted(trial, mark, len(to) * each, time.time() + 300)
    after = watch.moment(pids).cpu
    watch.close()
    taken: dict[str, float] = {
        group: after[group] - before[group] for group in ("postgres", "pgbouncer", "simulator") if group in before
    }
    taken["plain"] = sum(process.cpu_times()[:2]) - began
    per_message = {group: round(1000 * seconds / len(moments), 2) for group, seconds in taken.items()}
    return steady_rate(sorted(moments.values())), per_message


if __name__ == "__main__":
    sys.exit(main())
