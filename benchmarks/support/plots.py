"""The plots of the benchmarks, drawn from their JSON alone, so that a report can draw them again."""

from __future__ import annotations

from collections.abc import Callable
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
        save(lambda axes: plot(report, axes), path)


def save(plot: Callable[[Axes], None], path: Path) -> None:
    """Let ``plot`` draw and write the picture."""
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.subplots()
    plot(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    figure.tight_layout()
    with mpl.rc_context({"svg.hashsalt": "salamander"}):  # the same figures give the same file
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})  # type: ignore[no-untyped-call]


def _growth(report: Report, axes: Axes) -> None:
    sizes = [int(rows) for rows in report["over_rows"]]
    for name in next(iter(report["over_rows"].values()))["p50_ms"]:
        axes.plot(sizes, [each["p50_ms"][name] for each in report["over_rows"].values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="messages in the outbox", ylabel="milliseconds a call (p50)")
    axes.legend(fontsize=6, ncols=2, loc="upper left", bbox_to_anchor=(1.0, 1.0))


_PLOTS: dict[str, Callable[[Report, Axes], None]] = {"growth": _growth}
