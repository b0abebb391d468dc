"""logs, restarts, events: what happened, as it was written down."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.fleet import Fleet
from commands.output import AsJson, current_home, out, print_json, print_table, reported, shown
from config.errors import NotFound
from config.logging import human_line
from config.settings import load_settings
from storage import events as event_rows
from storage.database import SingleConnection, database_url

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes.")]
OfDevice = Annotated[str | None, typer.Option("--device", help="Only this device.")]
Lines = Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the latest to begin with.")]


@reported
def logs(follow: Follow = False, device: OfDevice = None, lines: Lines = 50, as_json: AsJson = False) -> None:
    """Show the daemon's log lines."""
    path = current_home().log_file
    if not path.exists():
        raise NotFound(f"There are no logs at {path} yet.", "Start the daemon: run.py start")
    for record in _records(path, lines, device, follow=follow):
        if as_json:
            print_json(record)
        else:
            out.print(human_line(record), markup=False, soft_wrap=True)


def _records(path: Path, lines: int, device: str | None, *, follow: bool) -> Iterator[dict[str, Any]]:
    def wanted(text: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(text)
        except ValueError:
            return None
        return record if device is None or record.get("device") == device else None

    file = path.open(encoding="utf-8", errors="replace")
    try:
        yield from deque((record for text in file if (record := wanted(text)) is not None), maxlen=lines)
        while follow:
            text = file.readline()
            if text.endswith("\n"):
                if (record := wanted(text)) is not None:
                    yield record
                continue
            if text:
                file.seek(file.tell() - len(text.encode()))
            time.sleep(0.2)
            if path.exists() and path.stat().st_ino != _inode(file):
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
    finally:
        file.close()


def _inode(file: Any) -> int:
    import os  # noqa: PLC0415

    return os.fstat(file.fileno()).st_ino


@reported
def restarts(follow: Follow = False, device: OfDevice = None, lines: Lines = 50, as_json: AsJson = False) -> None:
    """Show what was restarted: what died, why, what was tried, how long it took."""
    with Fleet(current_home().path) as fleet:
        rows = fleet.restarts(device=device, limit=lines)
        if as_json:
            for row in rows:
                print_json(row)
        else:
            print_table("Restarts", _RESTART_COLUMNS, map(_restart_cells, rows), "Nothing was restarted.")
        last = rows[-1]["id"] if rows else 0
        _follow(
            lambda after: fleet.restarts(device=device, after=after, limit=500),
            last,
            follow,
            _tell_restart,
            as_json,
        )


_RESTART_COLUMNS = ("at", "what", "name", "cause", "attempt", "tried", "outcome", "seconds")


def _restart_cells(row: dict[str, Any]) -> list[object]:
    return [row[column] for column in _RESTART_COLUMNS]


def _tell_restart(row: dict[str, Any]) -> None:
    out.print("  ".join(shown(cell) for cell in _restart_cells(row)))


@reported
def events(follow: Follow = False, device: OfDevice = None, lines: Lines = 50, as_json: AsJson = False) -> None:
    """Show messages received, receipts and state changes."""
    home = current_home()
    with Fleet(home.path) as fleet:
        if device is not None:
            fleet.device(device)
    database = SingleConnection(database_url(home, load_settings(home)))

    def after(last: int) -> list[dict[str, Any]]:
        with database.transaction() as connection:
            return event_rows.after(connection, last, device=device)

    with database.transaction() as connection:
        rows = event_rows.latest(connection, device=device, limit=lines)
    for row in rows:
        print_json(row) if as_json else _tell_event(row)
    if not rows and not as_json:
        out.print("Nothing happened yet.")
    _follow(after, rows[-1]["id"] if rows else 0, follow, _tell_event, as_json)


def _tell_event(row: dict[str, Any]) -> None:
    body = "  ".join(f"{key}={value}" for key, value in row["body"].items() if value not in (None, ""))
    out.print(f"{shown(row['at'])}  {row['device']}  {row['kind']}  {body}", markup=False, soft_wrap=True)


def _follow(
    after: Callable[[int], list[dict[str, Any]]],
    last: int,
    follow: bool,
    tell: Callable[[dict[str, Any]], None],
    as_json: bool,
) -> None:
    while follow:
        for row in after(last):
            last = row["id"]
            print_json(row) if as_json else tell(row)
        time.sleep(0.5)
