"""How far a fleet has come up: a live bar at a terminal, a line elsewhere."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.fleet import Fleet
from commands.output import out
from config.home import Home
from storage.devices import ComingUp
from supervisors.shards_file import read_shards_file

#: How often the bar moves, in seconds.
_LOOK_SECONDS = 0.5


def coming_up(home: Home, fleet: Fleet) -> ComingUp:
    """Return how many of the devices that are to be online have had their first try since the fleet started."""
    started = read_shards_file(home).get("started_at")
    # No word from the fleet yet: nothing of it has come up.
    return fleet.coming_up(time.time() - started if started else 0.0)


def show_coming_up(home: Home, fleet: Fleet) -> None:
    """Tell how far the fleet has come up; at a terminal, stay until it has."""
    now = coming_up(home, fleet)
    if now.complete:
        return
    if not out.is_terminal:
        out.print(f"Coming up: {now.tried} of {now.total} devices have been connected.")
        return
    columns = (TextColumn("Coming up"), BarColumn(), MofNCompleteColumn(), TextColumn("devices"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("Coming up", total=now.total)
        while not now.complete:
            progress.update(task, completed=now.tried, total=now.total)
            time.sleep(_LOOK_SECONDS)
            now = coming_up(home, fleet)
