"""How commands speak: tables for people, JSON with stable keys for machines, one-line errors with the next step."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table

from config.errors import SalamanderError
from config.home import Home, default_home

#: A command of ours within a sentence.
_RUN_PY = re.compile(r"\brun\.py (?=[a-z])")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _Output(Console):
    """A console whose reader may go away (as with `| head`): nothing is wrong then, and nothing more is to be said."""

    def on_broken_pipe(self) -> None:
        """End quietly, where rich would end with a failure."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(0) from None


#: Where tables go, and where errors go.
out = _Output(highlight=False)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]


class _Chosen:
    """The home this invocation works on."""

    home: Path | None = None


def choose_home(path: Path | None) -> None:
    """Remember the ``--home`` of this invocation."""
    _Chosen.home = path


def current_home() -> Home:
    """Return the home this invocation works on: ``--home``, ``SALAMANDER_HOME`` or the default."""
    return Home((_Chosen.home or default_home()).expanduser().absolute())


def reported(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Tell an expected error in one line on standard error, and exit with its status."""

    @functools.wraps(command)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return command(*arguments, **options)
        except SalamanderError as error:
            tell_error(error, as_json=bool(options.get("as_json")))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # As above, for what is printed as JSON. What is left in the buffer must not fail again at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return run


def tell_error(error: SalamanderError, *, as_json: bool) -> None:
    """Write an error to standard error."""
    if as_json:
        print_json({**error.as_dict(), "next_step": as_typed(error.next_step)}, stream=sys.stderr)
        return
    next_step = f" {as_typed(error.next_step)}" if error.next_step else ""
    err.print(f"Error: {error.sentence}{next_step}", style="red", markup=False, soft_wrap=True)


def as_typed(advice: str) -> str:
    """Return advice with the command as it is typed here: our sentences say `run.py`, the wheel brings `salamander`."""
    return _RUN_PY.sub("salamander ", advice) if Path(sys.argv[0]).name == "salamander" else advice


def print_json(value: Any, stream: Any = None) -> None:
    """Print a value as one line of JSON."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    print(text, file=stream or sys.stdout, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return None  # sealed secrets and digests are nobody's output
    return str(value)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows as a table, or say why there are none."""
    # Folded, not cut: an id that lost its end is none.
    folded = (Column(name, overflow="fold") for name in columns)
    table = Table(*folded, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    count = 0
    for row in rows:
        table.add_row(*(shown(cell) for cell in row))
        count += 1
    if count:
        out.print(table)
    else:
        out.print(as_typed(empty))


def shown(value: object) -> str:
    """Return a cell's text: local times, dashes for nothing, no markup."""
    if value is None or value == "":
        return "–"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value).replace("[", "\\[")


def pick(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return these keys of a row, in this order."""
    return {name: row[name] for name in names}
