#!/usr/bin/env python3
"""The report: docs/performance.md, written from the benchmarks' JSON in docs/performance, so that it cannot drift.

benchmarks/report.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support import plots, webhook_report
from benchmarks.support.goals import GOALS, Reports
from benchmarks.support.trial import PROJECT

_TEMPLATE = PROJECT / "benchmarks" / "performance_template.md"
_FIGURES = PROJECT / "docs" / "performance"
_REPORT = PROJECT / "docs" / "performance.md"
#: What a person found out about the figures, above all those that miss their goal; it stands in the report as it is.
_FINDINGS = _FIGURES / "findings.md"
_MISSING = "(not measured)"


def main() -> int:
    """Read every JSON file, draw the plots, write the report."""
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FIGURES.glob("*.json"))}
    plots.draw_fleets(_ordinary_fleets(reports), _FIGURES)
    for name, report in reports.items():
        plots.draw(report, _FIGURES / f"{name}.svg")
    parts = {name: _or_missing(build, reports) for name, build in _PARTS.items()}
    _REPORT.write_text(Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts), encoding="utf-8")
    print(f"Written: {_REPORT}")
    return 0


def _or_missing(build: Callable[[Reports], str], reports: Reports) -> str:
    try:
        return build(reports)
    except KeyError:
        return _MISSING


def _ordinary_fleets(reports: Reports) -> list[dict[str, Any]]:
    """Return the runs of the fleet benchmark with the settings as they come, smallest first."""
    return [report for report in _every_fleet(reports) if not report["settings"]]


def _every_fleet(reports: Reports) -> list[dict[str, Any]]:
    found = [report for report in reports.values() if report["benchmark"] == "fleet"]
    return sorted(found, key=lambda report: (bool(report["settings"]), int(report["whatsapp"])))


# --- the parts of the template ---------------------------------------------------------------------------------


def _goals(reports: Reports) -> str:
    rows = []
    for goal in GOALS:
        shown, verdict = _MISSING, "–"
        try:
            value = goal.measure(reports)
            shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
            verdict = "reached" if goal.reached(value) else "**missed**"
        except KeyError:
            pass
        plain = goal.plain if isinstance(goal.plain, str) else _or_missing(goal.plain, reports)
        rows.append([goal.figure, goal.goal, shown, verdict, plain])
    return _table(("figure", "goal", "measured", "", "plain alternative"), rows)


def _machines(reports: Reports) -> str:
    machines = {
        f"{each['cpu']}, {each['cores']} cores, {each['memory_gb']} GB, Linux {each['kernel']};"
        f" Python {each['python']}, neonize {each['neonize']}, thespian {each['thespian']}"
        for each in (report["machine"] for report in reports.values())
    }
    rows = [
        [
            f"`{report.get('command', report['benchmark'])}`",
            report["machine"]["at"],
            f"{report['seconds']:.0f} s" if "seconds" in report else "",
            report["machine"]["commit"],
            report["machine"]["load_before"]["1_minute"],
        ]
        for report in reports.values()
    ]
    return ". ".join(sorted(machines)) + ".\n\n" + _table(("command", "begun", "took", "commit", "load before"), rows)


def _fleets(reports: Reports) -> str:
    rows = [
        [
            f"{each['whatsapp']} + {each['platform']}" + "".join(f", {name} {told}" for name, told in _settings(each)),
            each["online"],
            f"{each['mb_per_device']:.3f} MB",
            f"{each['mb_per_device_with_postgres']:.3f} MB",
            f"{each['start_seconds']:.1f} s",
            f"{each['idle_cpu_percent']:.1f} %",
            f"{each['idle_cpu_percent_by_group']['postgres']:.1f} %",
            f"{each['idle_cpu_percent_by_group']['simulator']:.1f} %",
            each["threads"],
            f"{each['database_connections']['peak']}, {each['database_connections']['idle']}",
        ]
        for each in _every_fleet(reports)
    ]
    headings = ("WhatsApp + platforms", "online", "memory a device", "with PostgreSQL", "cold start", "idle CPU")
    more = ("PostgreSQL's", "simulator's", "threads", "connections, most and idle")
    return _table((*headings, *more), rows)


def _settings(report: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(report["settings"].items())


def _plain(reports: Reports) -> str:
    rows = [
        [
            each["whatsapp"],
            {"a_process_each": "one script, one process a number", "one_process": "one process with a loop"}[name],
            told["clients"],
            f"{told['mb_per_client']:.2f} MB",
            f"{told['idle_cpu_percent_per_client']:.4f} %",
            f"{told['clients'] / told['seconds']:.1f}",
        ]
        for each in _every_fleet(reports)
        for name, told in each["plain"].items()
    ]
    headings = ("beside a fleet of", "plain neonize as", "clients", "memory a client", "idle CPU a client")
    return _table((*headings, "started a second"), rows)


def _first_start(reports: Reports) -> str:
    found = [each["first_start"] for each in _every_fleet(reports) if each["first_start"]]
    told = [f"{each['devices']} devices in {each['seconds']:.1f} s ({each['uploads']} uploads)" for each in found]
    return ", ".join(told) or _MISSING


def _healing(reports: Reports) -> str:
    runs = [report for report in reports.values() if report["benchmark"] == "heal"]
    rows = [
        [report["machine"]["commit"], whose, kind, told["devices"], *_times(told), told["lost"], _peak(told)]
        for report in runs
        for whose, several in (("Salamander", report["healed"]), ("plain neonize", report["plain"]))
        for kind, told in several.items()
    ]
    headings = (
        "commit",
        "who",
        "what fell",
        "fallen",
        "p50",
        "p99",
        "longest",
        "never back",
        "most connects in a second",
    )
    return _table(headings, rows)


def _peak(told: dict[str, Any]) -> int:
    return int(told["peak_connects_per_second"])


def _times(told: dict[str, Any]) -> list[str]:
    if told["devices"] == told["lost"]:
        return ["–", "–", "–"]
    return [f"{told[name]:.2f} s" for name in ("p50", "p99", "longest")]


def _accepting(reports: Reports) -> str:
    rows = [
        [way, f"{told['per_second']:,.0f}", told.get("call_p50_ms", ""), told.get("call_p99_ms", "")]
        for way, told in reports["throughput"]["accepting"].items()
    ]
    return _table(("accepting", "a second", "ms a call, p50", "p99"), rows)


def _flows(reports: Reports) -> str:
    words = {"first": "the first of each", "again": "further ones"}
    rows = [
        [
            words[way],
            told["messages"],
            f"{told['per_second']:.1f}",
            ", ".join(f"{name} {value}" for name, value in told["cpu_ms_per_message"].items() if value >= 0.05),
        ]
        for way, told in reports["throughput"]["fleet"].items()
    ]
    return _table(("messages", "how many", "a second", "CPU ms a message"), rows)


def _loads(reports: Reports) -> str:
    rows = [
        [load, f"{told['per_second']:.1f}", told["messages"], f"{told['p50']:.3f} s", f"{told['p99']:.3f} s"]
        for load, told in reports["throughput"]["loads"].items()
    ]
    return _table(("load", "a second", "messages", "p50", "p99"), rows)


def _shard(reports: Reports) -> str:
    shard = reports["throughput"]["shard"]
    return (
        f"One shard of {shard['clients']} devices against plain neonize in one process with as many clients, in turn: "
        f"{shard['shard_per_second']} against {shard['plain_per_second']} messages a second, {shard['share']:.0%} "
        f"(rounds: {shard['shard_rounds']} and {shard['plain_rounds']})."
    )


def _platforms(reports: Reports) -> str:
    report = reports["platforms"]
    rows = [
        [each["accounts"], each["messages"], each["per_second"], each["plain_per_second"], f"{each['share']:.0%}"]
        for each in report["rows"]
    ]
    return _table(("accounts", "messages", "a second", "plain thread pool", "share"), rows)


def _growth(reports: Reports) -> str:
    report = reports["growth"]
    headings = ["one call, p50 in ms", *(f"{int(rows):,} rows" for rows in report["over_rows"])]
    headings += [f"{int(devices):,} devices" for devices in report["over_devices"]]
    columns = [*report["over_rows"].values(), *report["over_devices"].values()]
    names = list(columns[0]["p50_ms"])
    return _table(headings, [[name, *(f"{told['p50_ms'][name]:.2f}" for told in columns)] for name in names])


def _sizes(reports: Reports) -> str:
    over_rows = reports["growth"]["over_rows"]
    told = [
        f"{sum(each['megabytes'].values()):,.0f} MB with {int(rows):,} messages" for rows, each in over_rows.items()
    ]
    return ", ".join(told)


def _soak(reports: Reports) -> str:
    report = reports["soak"]
    work = report["work"]
    rows = [[name, each["first"], each["last"], f"{each['percent']:+.1f} %"] for name, each in report["growth"].items()]
    states = ", ".join(f"{number} {state}" for state, number in sorted(report["states"].items()))
    return (
        f"{report['minutes']:g} minutes with {report['whatsapp']} devices: {work['sent']} messages, {work['refreshes']}"
        f" refreshes, {work['resets']} sockets reset. In the end: {states}; lost: {report['lost']}, shown twice:"
        f" {report['doubled']}.\n\n" + _table(("what", "after the warm-up", "in the end", "growth"), rows)
    )


def _gateway(reports: Reports) -> str:
    report = reports["gateway"]
    rows = [
        [
            each["connections"],
            f"batches of {each['batch']}" if each["batch"] else "single",
            f"{each['gateway']['messages_per_second']:,.0f}",
            f"{sum(one['messages_per_second'] for one in each['bare']) / 2:,.0f}",
            f"{each['share']:.0%}",
            f"{each['same_row']['messages_per_second']:,.0f}",
            f"{each['share_of_same_row']:.0%}",
            each["gateway"]["p50_ms"],
            each["gateway"]["p99_ms"],
        ]
        for each in report["rates"]
    ]
    headings = ("connections", "", "messages a second", "bare row", "share", "our row", "share", "p50 ms", "p99 ms")
    half, bare, memory = report["half_load"], report["bare_half_load"], report["memory"]
    events = ", ".join(f"{e['listeners']} listeners: p50 {e['p50_ms']}, p99 {e['p99_ms']} ms" for e in report["events"])
    return (
        f"{_table(headings, rows)}\n\nAt half of the highest rate ({half['rate']:,} a second): p50 {half['p50_ms']} ms,"
        f" p99 {half['p99_ms']} ms; the bare handler at the same rate: {bare['p50_ms']} and {bare['p99_ms']} ms. The"
        f" gateway's own memory: {memory['before_mb']} MB, and {memory['after_mb']} MB after the load. An event, from"
        f" its commit to those who follow the stream: {events}."
    )


def _webhooks(reports: Reports) -> str:
    report = reports["webhooks"]
    return f"{webhook_report.words(report)}\n\n{_table(webhook_report.HEADINGS, webhook_report.rows(report))}"


def _findings(_reports: Reports) -> str:
    return _FINDINGS.read_text(encoding="utf-8").strip() if _FINDINGS.exists() else ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


#: What the template's placeholders stand for.
_PARTS: dict[str, Callable[[Reports], str]] = {
    "goals": _goals,
    "machines": _machines,
    "fleets": _fleets,
    "plain": _plain,
    "first_start": _first_start,
    "heal_devices": lambda reports: str(reports["heal"]["whatsapp"]),
    "budget": lambda reports: f"{reports['heal']['budget_per_second']:g}",
    "healing": _healing,
    "throughput_devices": lambda reports: str(reports["throughput"]["whatsapp"]),
    "accepting": _accepting,
    "flows": _flows,
    "loads": _loads,
    "shard": _shard,
    "platforms": _platforms,
    "gateway": _gateway,
    "webhooks": _webhooks,
    "growth": _growth,
    "sizes": _sizes,
    "soak": _soak,
    "findings": _findings,
}


if __name__ == "__main__":
    sys.exit(main())
