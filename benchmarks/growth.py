#!/usr/bin/env python3
"""The growth benchmark: which cost grows with the history and with the number of devices, and how.

    benchmarks/growth.py --rows 10000 1000000 10000000 --devices 30 300 3000 --json

It fills a fresh PostgreSQL with finished messages and calls the product's own functions on it, as the router, a shard
and the command line call them. A cost that is flat over a thousand times the rows does not grow with history.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.growth_trial import measure_costs
from benchmarks.support.history import add_lanes, fill_history
from storage.database import SALAMANDER_DATABASE, connect
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate

#: Devices while the history grows: those of a full fleet.
_FLEET = 3000
#: Rows of history while the devices grow.
_SOME_ROWS = 10_000


def main() -> int:
    """Fill and measure, again and again; return the exit status."""
    bench = Benchmark("growth", __doc__)
    bench.parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="history, rising")
    bench.parser.add_argument("--devices", type=int, nargs="+", default=[30, 300, 3000], help="devices, rising")
    bench.parser.add_argument("--seconds", type=float, default=1.0, help="how long each cost is measured")
    arguments = bench.parse()
    with bench.directory() as directory:
        server = EmbeddedPostgres(directory / "postgres")
        server.start()
        try:
            over_devices = {}
            for devices in arguments.devices:
                bench.say(f"{devices} devices, {_SOME_ROWS} rows")
                name = f"devices_{devices}"
                over_devices[str(devices)] = _measure(server, name, devices, [_SOME_ROWS], arguments.seconds, bench)[
                    str(_SOME_ROWS)
                ]
            over_rows = _measure(server, SALAMANDER_DATABASE, _FLEET, arguments.rows, arguments.seconds, bench)
        finally:
            server.stop()
    figures: dict[str, Any] = {"over_rows": over_rows, "over_devices": over_devices}
    names = list(next(iter(over_rows.values()))["p50_ms"])
    headings = ["p50 in ms", *(f"{int(rows):,} rows" for rows in over_rows), *(f"{each} dev" for each in over_devices)]
    columns = [*over_rows.values(), *over_devices.values()]
    return bench.finish(figures, headings, [[name, *(each["p50_ms"][name] for each in columns)] for name in names])


def _measure(
    server: EmbeddedPostgres, name: str, devices: int, sizes: list[int], seconds: float, bench: Benchmark
) -> dict[str, Any]:
    """Return the costs for each size of the history, in a database of its own."""
    server.ensure_database(name)
    migrate(server.url(name))
    found = {}
    with connect(server.url(name)) as connection:
        add_lanes(connection, devices)
        for rows in sizes:
            bench.say(f"filling up to {rows:,} rows")
            fill_history(connection, rows)
            bench.say("measuring")
            found[str(rows)] = measure_costs(server.url(name), connection, seconds)
    return found


if __name__ == "__main__":
    sys.exit(main())
