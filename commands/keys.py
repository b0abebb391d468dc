"""key create, list, revoke: who may use the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.fleet import Fleet
from commands.output import AsJson, current_home, err, out, print_json, print_table, reported
from config.api_keys import SCOPES, new_key, public_id

app = typer.Typer(no_args_is_help=True, help="Keys of the HTTP API.")


@app.command("create")
@reported
def create(
    scope: Annotated[str, typer.Option(help=f"What it may be used for: {', '.join(SCOPES)} (each includes the last).")],
    device: Annotated[list[str] | None, typer.Option(help="Only this device (repeat for several).")] = None,
    name: Annotated[str, typer.Option(help="What it is for, as you want to read it in the list.")] = "",
    per_minute: Annotated[int | None, typer.Option(min=0, help="Requests in a minute; 0: any number.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    key = new_key()
    with Fleet(current_home().path) as fleet:
        fleet.add_key(key, scope=scope, devices=device or [], name=name, per_minute=per_minute)
    if as_json:
        print_json({"id": public_id(key), "key": key, "scope": scope, "devices": device or [], "name": name})
        return
    print(key)  # noqa: T201 - alone on standard output, so that a script can take it
    err.print("It is not shown again. Send it as: Authorization: Bearer KEY", markup=False)


@app.command("list")
@reported
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, also those that were revoked."""
    with Fleet(current_home().path) as fleet:
        rows = fleet.keys()
    if as_json:
        print_json(rows)
        return
    print_table(
        "API keys",
        ("id", "scope", "devices", "name", "a minute", "created", "revoked"),
        [
            (
                row["public_id"],
                row["scope"],
                ", ".join(row["devices"]) if row["bound"] else "all",
                row["name"],
                row["per_minute"],
                row["created_at"],
                row["revoked_at"],
            )
            for row in rows
        ],
        "No keys yet: run.py key create --scope send",
    )


@app.command("revoke")
@reported
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="Its id in the list.")]) -> None:
    """End a key. Requests with it are refused within a second."""
    with Fleet(current_home().path) as fleet:
        fleet.revoke_key(key_id)
    out.print(f"Revoked {key_id}.", markup=False)
