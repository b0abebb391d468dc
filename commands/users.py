"""user …, dashboard: who may sign in to the dashboard, and the way in for the first."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from actors.router_connection import running_daemon
from commands.output import AsJson, as_typed, current_home, out, print_json, print_table, reported
from config.errors import DaemonNotRunning, Refused
from config.gateway import gateway_url
from config.settings import load_settings
from storage import users
from storage.database import SingleConnection, database_url
from storage.passwords import code_hash, hash_password, new_code, user_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.database import Connection

app = typer.Typer(no_args_is_help=True, help="Who may sign in to the dashboard.")

#: How long the code for the first sign-in is good, in seconds, and how often it may be mistyped.
_CODE_SECONDS = 600
_CODE_TRIES = 5
#: Where a password comes from when nobody is there to type it; it is never an argument, which anybody could read.
_VARIABLE = "SALAMANDER_CREDENTIAL_PASSWORD"

Name = Annotated[str, typer.Argument(help="The user's name.")]
Result = TypeVar("Result")


@app.command("add")
@reported
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="operator, or viewer (sees everything, changes nothing).")] = "viewer",
    as_json: AsJson = False,
) -> None:
    """Add a user. The password comes by prompt, environment (SALAMANDER_CREDENTIAL_PASSWORD) or standard input."""
    if role not in users.ROLES:
        raise Refused(f"There is no role {role!r}.", f"Choose one of {', '.join(users.ROLES)}.", code="bad_role")
    name = user_name(name)
    hashed = hash_password(_password())
    _change(lambda connection: users.add(connection, name, role, hashed))
    if as_json:
        print_json({"name": name, "role": role})
    else:
        out.print(f"Added the {role} {name}.", markup=False)


@app.command("list")
@reported
def list_users(as_json: AsJson = False) -> None:
    """List the users, and when each was last seen."""
    rows = _change(users.all_users)
    if as_json:
        print_json(rows)
        return
    print_table(
        "Users",
        ("name", "role", "added", "last seen"),
        [(row["name"], row["role"], row["created_at"], row["seen_at"]) for row in rows],
        "No users yet: run.py dashboard",
    )


@app.command("remove")
@reported
def remove(name: Name) -> None:
    """Remove a user; whoever is signed in under that name is signed out."""
    name = user_name(name)
    _change(lambda connection: users.remove(connection, name))
    out.print(f"Removed {name}.", markup=False)


@app.command("password")
@reported
def password(name: Name) -> None:
    """Give a user another password; whoever is signed in under that name is signed out."""
    name = user_name(name)
    hashed = hash_password(_password())
    _change(lambda connection: users.set_password(connection, name, hashed))
    out.print(f"{name} has another password.", markup=False)


def _change(change: Callable[[Connection], Result]) -> Result:
    """Do something in one transaction on the database of this home."""
    home = current_home()
    settings = load_settings(home)
    if settings.database_url is None and not home.daemon_file.exists():
        raise DaemonNotRunning(home.path)  # the embedded server lives and dies with the daemon
    database = SingleConnection(database_url(home, settings))
    try:
        with database.transaction() as connection:
            return change(connection)
    finally:
        database.close()


def _password() -> str:
    given = os.environ.get(_VARIABLE)
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


# --- the way in ------------------------------------------------------------------------------------------


@reported
def dashboard(as_json: AsJson = False) -> None:
    """Show the dashboard's address, and while there is no user the code by which the first one signs in."""
    home = current_home()
    running_daemon(home)
    url = gateway_url(home, load_settings(home))
    if url is None:
        raise Refused(
            "The gateway is switched off, or not up yet.",
            f"See gateway_enabled in {home.configuration}, and run.py status.",
            code="gateway_off",
        )
    code = new_code()

    def invite(connection: Connection) -> bool:
        if users.exist(connection):
            return False
        users.set_first_code(connection, code_hash(code), _CODE_SECONDS, _CODE_TRIES)
        return True

    first = _change(invite)
    if as_json:
        print_json({"url": url, "code": code if first else None})
        return
    out.print(f"The dashboard: {url}", markup=False, soft_wrap=True)
    if first:
        out.print(f"Nobody can sign in yet. Type this code there: {code} (good for {_CODE_SECONDS // 60} minutes).")
    else:
        out.print(as_typed("Sign in with your name and password; a new password: run.py user password NAME"))
