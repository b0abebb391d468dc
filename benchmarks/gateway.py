#!/usr/bin/env python3
"""The gateway's benchmark: accepted messages a second over HTTP, beside a bare FastAPI handler that inserts a row.

    benchmarks/gateway.py --json

Each rate is measured in turn, on the same machine within the same minute: the bare handler, one that writes the
outbox's own row instead of four columns, the gateway, and the bare handler again (the mean of the two is compared
with). They run on the same server and PostgreSQL; the gateway besides checks a key and asks the router, which validates
the message and writes its story. Then: latencies at half of the highest rate, the gateway's memory, and how long an
event takes to those who listen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.gateway_trial import GatewayTrial

#: The shares of the bare handler's rate that single messages and batches shall reach.
_GOALS = {0: 0.70, 1: 0.90}
#: The latency at half load, in milliseconds, and the memory that the gateway may gain under load, in MB.
_P99_MS = 50.0
_GAIN_MB = 10.0


def main() -> int:
    """Measure, print the tables, and return the exit status."""
    bench = Benchmark("gateway", __doc__)
    bench.parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    bench.parser.add_argument("--batch", type=int, default=100, help="messages in a batch")
    bench.parser.add_argument("--seconds", type=float, default=8.0, help="how long each rate is measured")
    bench.parser.add_argument("--long", type=float, default=60.0, help="how long memory is watched under load")
    arguments = bench.parse()
    with bench.trial() as trial:
        gateway = GatewayTrial(trial)
        rates: list[dict[str, Any]] = []
        with gateway.bare() as bare, gateway.bare(same_row=True) as same_row:
            for batch in (0, arguments.batch):
                for connections in arguments.connections:
                    bench.say(_name(connections, batch))
                    rates.append(gateway.compare(bare, same_row, connections, arguments.seconds, batch))
            highest = max(each["gateway"]["messages_per_second"] for each in rates if not each["batch"])
            bench.say("half load")
            most = max(arguments.connections)
            half = gateway.at_rate(gateway.port, highest / 2, most, arguments.seconds)
            bare_half = gateway.at_rate(bare, highest / 2, most, arguments.seconds)
        before = gateway.memory_mb()
        bench.say("memory under load")
        gateway.at_rate(gateway.port, highest / 2, most, arguments.long)
        memory = {"before_mb": before, "after_mb": gateway.memory_mb()}
        bench.say("events")
        delays = [gateway.event_delays(listeners, 200) for listeners in (1, 32)]
    refused = [each for each in rates if each["gateway"]["refused"]]
    bench.failed = bool(refused) or any(each["heard"] < each["listeners"] * each["events"] for each in delays)
    met = {
        "single": all(each["share"] >= _GOALS[0] for each in rates if not each["batch"]),
        "batch": all(each["share"] >= _GOALS[1] for each in rates if each["batch"]),
        "p99_at_half_load": half["p99_ms"] < _P99_MS,
        "memory_flat": memory["after_mb"] - memory["before_mb"] < _GAIN_MB,
    }
    figures: dict[str, Any] = {"rates": rates, "half_load": half, "bare_half_load": bare_half}
    figures |= {"memory": memory, "events": delays, "met": met}
    rows: list[list[object]] = [
        [
            _name(each["connections"], each["batch"]),
            each["gateway"]["messages_per_second"],
            sum(one["messages_per_second"] for one in each["bare"]) / 2,
            each["share"],
            each["same_row"]["messages_per_second"],
            each["share_of_same_row"],
            each["gateway"]["p50_ms"],
            each["gateway"]["p99_ms"],
        ]
        for each in rates
    ]
    blank = [0] * 5
    for name, each in (("half load", half), ("half load, bare", bare_half)):
        rows.append([f"{name} ({each['rate']}/s)", *blank, each["p50_ms"], each["p99_ms"]])
    rows += [[f"events, {each['listeners']} listeners", *blank, each["p50_ms"], each["p99_ms"]] for each in delays]
    status = bench.finish(figures, ("", "messages/s", "bare", "share", "own row", "share", "p50 ms", "p99 ms"), rows)
    print(f"Memory: {memory['before_mb']} MB, then {memory['after_mb']} MB. Goals met: {met}", file=sys.stderr)
    return status


def _name(connections: int, batch: int) -> str:
    return f"{connections} connections, {f'batches of {batch}' if batch else 'single'}"


if __name__ == "__main__":
    sys.exit(main())
