"""shard list, shard recycle: the processes that host devices."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from actors.fleet import Fleet
from actors.router_connection import running_daemon
from commands.output import AsJson, current_home, out, print_json, print_table, reported
from config.errors import NoAnswer, NotFound, Refused
from config.home import Home
from supervisors.shards_file import read_shards_file

#: How long a recycling is waited for, in seconds.
_RECYCLE_SECONDS = 600.0

app = typer.Typer(no_args_is_help=True, help="Shards: the processes that host WhatsApp devices.")


@app.command("list")
@reported
def list_shards(as_json: AsJson = False) -> None:
    """List the shards: what they host and how worn they are."""
    home = current_home()
    running_daemon(home)
    told = read_shards_file(home)
    if as_json:
        print_json(told)
        return
    print_table(
        "Shards",
        ("shard", "process", "devices", "clients opened", "descriptors", "memory (MB)", "age (s)"),
        [
            (
                each["name"],
                each["pid"],
                each["devices"],
                each["refreshes"],
                each["descriptors"],
                each["memory_mb"],
                each["age_seconds"],
            )
            for each in told["shards"]
        ],
        "No shards: there are no WhatsApp devices.",
    )
    if told["recycling"]:
        out.print(recycling_line(told["recycling"]), markup=False)


def recycling_line(recycling: dict[str, object]) -> str:
    """Return what is being recycled, in a sentence."""
    return (
        f"Recycling {recycling['shard']}: {recycling['successor']} takes over its devices, {recycling['moved']} moved,"
        f" {recycling['left']} to go. {recycling['cause']}"
    )


@app.command("recycle")
@reported
def recycle(
    name: Annotated[str, typer.Argument(help="The shard's name, as run.py shard list shows it.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Let a fresh process take over a shard's devices, one by one, without losing or delaying a message."""
    home = current_home()
    running_daemon(home)
    _require_shard(home, name)
    with Fleet(home.path) as fleet:
        request = fleet.recycle_shard(name)
        row = None
        deadline = time.monotonic() + _RECYCLE_SECONDS
        while wait and (row := fleet.restart_of(request)) is None:
            if time.monotonic() > deadline:
                raise NoAnswer(f"{name} is still being recycled.", "See run.py status.")
            time.sleep(0.2)
    if row is not None and row["outcome"] != "ok":
        raise Refused(f"{name} was not recycled: {row['outcome']}.", "See run.py shard list.", code="not_recycled")
    if as_json:
        print_json({"shard": name, "done": row is not None, "seconds": row["seconds"] if row else None})
    elif row is not None:
        out.print(f"Recycled {name} in {row['seconds']:.1f} s: {row['tried']}.", markup=False)
    else:
        out.print(f"{name} is being recycled. See run.py status", markup=False)


def _require_shard(home: Home, name: str) -> None:
    if name not in {each["name"] for each in read_shards_file(home)["shards"]}:
        raise NotFound(f"There is no shard named {name!r}.", "See run.py shard list.", code="unknown_shard")
