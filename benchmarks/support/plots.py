"""The plots of the benchmarks, drawn from their JSON alone, so that a report can draw them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Report = dict[str, Any]


def draw(report: Report, path: Path) -> None:
    """Draw the plot of a report, if its benchmark has one, into an SVG file."""
    plot = _PLOTS.get(report["benchmark"])
    if plot is not None:
        _save(lambda axes: plot(report, axes), path)


def draw_fleets(reports: Sequence[Report], directory: Path) -> None:
    """Draw what several sizes of a fleet have to do with each other: memory a device, and the start-up curves."""
    if reports:
        _save(lambda axes: _memory(reports, axes), directory / "fleet-memory.svg")
        _save(lambda axes: _starts(reports, axes), directory / "fleet-start.svg")


def _save(plot: Callable[[Axes], None], path: Path) -> None:
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.subplots()
    plot(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    figure.tight_layout()
    # Texts stay texts, and the same figures give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "salamander"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})  # type: ignore[no-untyped-call]


def _memory(reports: Sequence[Report], axes: Axes) -> None:
    sizes = [report["whatsapp"] for report in reports]
    axes.plot(sizes, [report["mb_per_device"] for report in reports], marker="o", label="Salamander, whole product")
    for name, words in (
        ("a_process_each", "plain neonize, a process each"),
        ("one_process", "bare clients, one process"),
    ):
        known = [report for report in reports if name in report["plain"]]
        if known:
            memory = [report["plain"][name]["mb_per_client"] for report in known]
            axes.plot([report["whatsapp"] for report in known], memory, marker="o", linestyle="--", label=words)
    axes.axhline(0.75, color="grey", linewidth=0.8, linestyle=":", label="goal at 3000")
    axes.set(xscale="log", yscale="log", xlabel="WhatsApp devices", ylabel="MB a device (PSS)")
    axes.legend(fontsize=8)


def _starts(reports: Sequence[Report], axes: Axes) -> None:
    for report in reports:
        _start(report, axes)
    axes.legend(fontsize=8)


def _start(report: Report, axes: Axes) -> None:
    seconds, online = zip(*report["start_curve"], strict=True)
    axes.plot(seconds, [100 * each / report["whatsapp"] for each in online], label=f"{report['whatsapp']} devices")
    axes.set(xlabel="seconds since the start", ylabel="% of the devices online")


def _heal(report: Report, axes: Axes) -> None:
    for kind, told in report["healed"].items():
        if len(told["curve"]) > 1:
            seconds, back = zip(*told["curve"], strict=True)
            axes.plot(seconds, [100 * each / max(1, *back) for each in back], label=kind)
    axes.set(xlabel="seconds since the strike", ylabel="% of the fallen online again")
    axes.legend(fontsize=8)


def _throughput(report: Report, axes: Axes) -> None:
    ways = {way: told["per_second"] for way, told in report["accepting"].items() if not way.startswith("plain")}
    axes.barh(list(ways), list(ways.values()))
    axes.set(xscale="log", xlabel="messages accepted a second")


def _growth(report: Report, axes: Axes) -> None:
    sizes = [int(rows) for rows in report["over_rows"]]
    for name in next(iter(report["over_rows"].values()))["p50_ms"]:
        axes.plot(sizes, [each["p50_ms"][name] for each in report["over_rows"].values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="messages in the outbox", ylabel="milliseconds a call (p50)")
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _soak(report: Report, axes: Axes) -> None:
    minutes = [sample["seconds"] / 60 for sample in report["samples"]]
    for name, words in (
        ("product_mb", "memory of the product (MB)"),
        ("shards_mb", "memory of its shards (MB)"),
        ("descriptors", "open descriptors"),
        ("connections", "database connections"),
    ):
        axes.plot(minutes, [sample[name] for sample in report["samples"]], label=words)
    axes.set(xlabel="minutes", yscale="log")
    axes.legend(fontsize=8)


_PLOTS: dict[str, Callable[[Report, Axes], None]] = {
    "fleet": _start,
    "heal": _heal,
    "throughput": _throughput,
    "growth": _growth,
    "soak": _soak,
}
