"""What every benchmark shares: its arguments, a fleet to measure, its table, its JSON and its plot."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.support.machine import describe_machine
from benchmarks.support.plots import draw
from benchmarks.support.trial import PROJECT, Trial
from config.home import Home

#: Where figures go unless told otherwise: not where the published ones are.
_RESULTS = PROJECT / "benchmarks" / "results"

Rows = Sequence[Sequence[object]]


class Benchmark:
    """One benchmark's run, from its arguments to its files.

    Attributes:
        parser: add the benchmark's own arguments to it before :meth:`parse`.
        failed: set by whoever finds that the run did not do what it had to; it decides the exit status.
    """

    def __init__(self, name: str, description: str | None) -> None:
        self.name = name
        self.failed = False
        self.parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting (JSON)")
        self.parser.add_argument("--to", type=Path, default=_RESULTS, help="where the JSON and the plot are written")
        self.parser.add_argument("--keep", action="store_true", help="keep the home")
        self.parser.add_argument("--quiet", action="store_true", help="do not tell what happens")
        self.parser.add_argument("--json", action="store_true", help="end with one line of JSON")
        self._arguments = argparse.Namespace()
        self._machine: dict[str, Any] = {}
        self._began = time.monotonic()

    def parse(self) -> argparse.Namespace:
        """Read the command line, and describe the machine before anything loads it."""
        self._arguments = self.parser.parse_args()
        self._machine = describe_machine()
        return self._arguments

    @property
    def settings(self) -> dict[str, Any]:
        """The daemon's settings that the command line gives."""
        pairs = (each.partition("=") for each in self._arguments.set)
        return {name: json.loads(value) for name, _, value in pairs}

    def say(self, text: str) -> None:
        """Tell on standard error what happens now."""
        if not self._arguments.quiet:
            print(f"{time.monotonic() - self._began:8.1f} s  {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Lend a directory and remove it (``--keep``, or a failure, keeps it)."""
        path = Path(tempfile.mkdtemp(prefix=f"salamander-{self.name}-"))
        path.chmod(0o755)  # PostgreSQL's account must pass through; the home inside is private
        try:
            yield path
        except BaseException:
            self.failed = True
            raise
        finally:
            if self._arguments.keep or self.failed:
                print(f"The home is kept: {path}", file=sys.stderr)
            else:
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def trial(self, **settings: Any) -> Iterator[Trial]:
        """Lend a fleet on a fresh home; it is stopped in the end, whatever happened."""
        with self.directory() as directory:
            trial = Trial(Home(directory / "home"), {**settings, **self.settings})
            try:
                yield trial
            finally:
                trial.stop()

    def finish(self, figures: dict[str, Any], headings: Sequence[str], rows: Rows, variant: str = "") -> int:
        """Print the table, write JSON and plot, and return the exit status.

        Args:
            figures: what was measured, for JSON.
            headings, rows: the table for people.
            variant: tells the files of several runs of one benchmark apart.
        """
        report = {
            "benchmark": self.name,
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "machine": self._machine,
            "seconds": round(time.monotonic() - self._began, 1),
            **figures,
        }
        machine = self._machine
        print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}")
        print_table(headings, rows)
        to: Path = self._arguments.to
        to.mkdir(parents=True, exist_ok=True)
        stem = f"{self.name}-{variant}" if variant else self.name
        (to / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draw(report, to / f"{stem}.svg")
        print(f"Written: {to / stem}.json and .svg")
        if self._arguments.json:
            print(json.dumps(report), flush=True)
        return 1 if self.failed else 0


def print_table(headings: Sequence[str], rows: Rows) -> None:
    """Print a table whose columns are as wide as they must be; numbers stand at the right."""
    table = [[str(each) for each in headings], *([_shown(each) for each in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(headings))]
    for line in table:
        cells = (
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(line, widths, right, strict=True)
        )
        print("  " + "  ".join(cells).rstrip())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie (the nearest rank); 0 for none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, round(share * len(ranked) + 0.5) - 1))]
