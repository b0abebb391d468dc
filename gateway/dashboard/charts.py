"""The geometry of charts: from spans of traffic to shapes in the units of an SVG's view box. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config.durations import duration
from storage.traffic import DELIVERY_BOUNDS, Span

#: The view box of a chart, and of one that takes the whole width of a page; in it the room for labels at the left, the
#: bottom, the top and the right.
WIDTH, WIDE, HEIGHT = 720, 1460, 220
LEFT, BOTTOM, TOP, RIGHT = 44, 26, 10, 10
_PLOT_HEIGHT = HEIGHT - TOP - BOTTOM
_TICKS = 4
#: The share of its span that a bar fills.
_FILLED = 0.82


class Series(NamedTuple):
    """What is shown: its machine name (for the colour), its words, and its value in a span."""

    name: str
    title: str
    value: Callable[[Span], float]


@dataclass(frozen=True)
class Bar:
    """One bar, or a part of a stack."""

    series: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Curve:
    """One line through the middle of each span that has a value; ``dots`` are values without a neighbour."""

    series: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tick:
    """A label at an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """All shapes of a chart, and its numbers as a table for those who read instead of look."""

    width: int
    bars: tuple[Bar, ...]
    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    upwards: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    table: tuple[tuple[str, tuple[str, ...]], ...]
    empty: bool


_TRAFFIC = (
    Series("delivered", "delivered", lambda span: span.delivered),
    Series("sent", "sent", lambda span: span.sent),
    Series("failed", "failed", lambda span: span.failed),
    Series("in-doubt", "in doubt", lambda span: span.in_doubt),
)
_HEALING = (
    Series("reconnects", "devices reconnected", lambda span: span.reconnects),
    Series("restarts", "processes restarted", lambda span: span.restarts),
)
_DELIVERY = (
    Series("median", "half within", lambda span: quantile(span.delivery, 0.5)),
    Series("slow", "95 % within", lambda span: quantile(span.delivery, 0.95)),
)


def traffic_chart(spans: Sequence[Span], seconds: int) -> Chart:
    """Return the chart of outcomes: side by side in each span, since a message is first sent and then delivered."""
    return _grouped(spans, seconds, _TRAFFIC, WIDE)


def healing_chart(spans: Sequence[Span], seconds: int) -> Chart:
    """Return the chart of what was restarted."""
    return _grouped(spans, seconds, _HEALING, WIDTH)


def delivery_chart(spans: Sequence[Span], seconds: int) -> Chart:
    """Return the chart of the times from acceptance to delivery: the median, and what 95 of 100 stay within."""
    values = {each.name: [each.value(span) for span in spans] for each in _DELIVERY}
    top = nice_ceiling(max((value for column in values.values() for value in column), default=0.0))
    curves = tuple(_curve(each.name, values[each.name], top) for each in _DELIVERY)
    return Chart(
        width=WIDTH,
        bars=(),
        curves=curves,
        across=time_ticks(len(spans), seconds, WIDTH),
        upwards=_upwards(top, lambda value: duration(value) if value >= 60 else f"{value:g} s"),
        legend=tuple((each.name, each.title) for each in _DELIVERY),
        table=_table(spans, seconds, _DELIVERY, lambda value: f"{value:.1f} s" if value else "–"),
        empty=not any(any(column) for column in values.values()),
    )


def sums_of(spans: Sequence[Span]) -> dict[str, str]:
    """Return the period's numbers: how many were sent, delivered, failed, and how long delivery took."""
    times = [sum(column) for column in zip(*(span.delivery for span in spans), strict=True)]
    return {
        "sent": f"{sum(span.sent for span in spans):,}",
        "delivered": f"{sum(span.delivered for span in spans):,}",
        "failed": f"{sum(span.failed for span in spans):,}",
        "in doubt": f"{sum(span.in_doubt for span in spans):,}",
        "half delivered within": f"{quantile(times, 0.5):.1f} s" if any(times) else "–",
        "reconnects": f"{sum(span.reconnects for span in spans):,}",
    }


def quantile(buckets: Sequence[int], share: float) -> float:
    """Return the time that ``share`` of the deliveries stay within, estimated inside its bucket; 0: there are none."""
    total = sum(buckets)
    if not total:
        return 0.0
    wanted, passed, lower = share * total, 0, 0.0
    for count, upper in zip(buckets, (*DELIVERY_BOUNDS, 2 * DELIVERY_BOUNDS[-1]), strict=True):
        if count and passed + count >= wanted:
            return lower + (upper - lower) * (wanted - passed) / count
        passed, lower = passed + count, float(upper)
    return lower


def nice_ceiling(value: float) -> float:
    """Return the next round number at or above ``value`` whose quarters can be read; at least 4."""
    if value <= 4:
        return 4.0
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def time_ticks(spans: int, seconds: int, width: int) -> tuple[Tick, ...]:
    """Return the labels of the time axis: how long ago, since browsers know their clocks and servers do not."""
    total = spans * seconds
    ticks = []
    for quarter in range(_TICKS + 1):
        back = total - total * quarter // _TICKS
        label = f"{duration(back)} ago" if back else "now"
        ticks.append(Tick(_r(LEFT + _plot_width(width) * quarter / _TICKS), label))
    return tuple(ticks)


def _plot_width(width: int) -> int:
    return width - LEFT - RIGHT


def _grouped(spans: Sequence[Span], seconds: int, series: Sequence[Series], across: int) -> Chart:
    top = nice_ceiling(max((each.value(span) for span in spans for each in series), default=0.0))
    used = [each for each in series if any(each.value(span) for span in spans)] or list(series[:1])
    room = _plot_width(across) / max(1, len(spans))
    width = room * _FILLED / len(used)
    bars = []
    for number, span in enumerate(spans):
        for place, each in enumerate(used):
            value = each.value(span)
            if not value:
                continue
            height = max(1.5, _PLOT_HEIGHT * value / top)
            x = LEFT + room * number + room * (1 - _FILLED) / 2 + width * place
            title = f"{value:,.0f} {each.title}, {_when(len(spans) - number, seconds)}"
            bars.append(Bar(each.name, _r(x), _r(TOP + _PLOT_HEIGHT - height), _r(width), _r(height), title))
    return Chart(
        width=across,
        bars=tuple(bars),
        curves=(),
        across=time_ticks(len(spans), seconds, across),
        upwards=_upwards(top, lambda value: f"{value:,.0f}"),
        legend=tuple((each.name, each.title) for each in series),
        table=_table(spans, seconds, series, lambda value: f"{value:,.0f}"),
        empty=not bars,
    )


def _curve(name: str, values: Sequence[float], top: float) -> Curve:
    room = _plot_width(WIDTH) / max(1, len(values))
    points = [
        (_r(LEFT + room * (number + 0.5)), _r(TOP + _PLOT_HEIGHT * (1 - value / top))) if value else None
        for number, value in enumerate(values)
    ]
    pieces, dots = [], []
    for number, point in enumerate(points):
        before = points[number - 1] if number else None
        after = points[number + 1] if number + 1 < len(points) else None
        if point is None:
            continue
        if before is None and after is None:
            dots.append(point)
        else:
            pieces.append(f"{'M' if before is None else 'L'}{point[0]} {point[1]}")
    return Curve(name, " ".join(pieces), tuple(dots))


def _upwards(top: float, label: Callable[[float], str]) -> tuple[Tick, ...]:
    steps = [top * number / _TICKS for number in range(_TICKS + 1)]
    return tuple(Tick(_r(TOP + _PLOT_HEIGHT * (1 - step / top)), label(step)) for step in steps)


def _table(
    spans: Sequence[Span], seconds: int, series: Sequence[Series], shown: Callable[[float], str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    rows = []
    for number, span in enumerate(spans):
        values = [each.value(span) for each in series]
        if any(values):
            rows.append((_when(len(spans) - number, seconds), tuple(shown(value) for value in values)))
    return tuple(reversed(rows))


def _when(spans_back: int, seconds: int) -> str:
    """Return which span it is, counted from now."""
    return "now" if spans_back <= 1 else f"{duration((spans_back - 1) * seconds)} ago"


def _r(value: float) -> float:
    return round(value, 2)
