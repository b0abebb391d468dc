"""adopt: bring the paired sessions of another whatsmeow tool along, so that nobody scans again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.fleet import Fleet
from adoption.adopter import Adoption
from adoption.plan import Step
from adoption.postgres_source import PostgresSource, read_dsn
from adoption.source import Source, store_version
from adoption.sqlite_source import SqliteSource
from adoption.store import Store
from commands.output import AsJson, as_typed, current_home, err, out, print_json, print_table, reported
from config.errors import Refused, SalamanderError, UsageWrong
from config.home import Home
from config.settings import load_settings
from storage.credentials import CredentialSeal
from storage.database import whatsmeow_url

_STOP_IT = (
    "The other tool must be stopped, and must not start again: two programs with one WhatsApp session throw each other"
    " out, and what one of them does to a session's keys the other does not know."
)


@reported
def adopt(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="A SQLite file, or a PostgreSQL URL without a password; - reads the URL from standard input.",
        ),
    ] = None,
    from_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Read the URL, which may hold a password, from there.")
    ] = None,
    from_file: Annotated[Path | None, typer.Option(help="Read the URL from this file.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="WHO=NAME", help="Name a device: WHO is a JID, a number, or the original's name."),
    ] = None,
    names_file: Annotated[Path | None, typer.Option(help="Read such names from a file, one WHO=NAME a line.")] = None,
    base_url: Annotated[
        list[str] | None,
        typer.Option(metavar="PLATFORM=URL", help="The API address of a platform's accounts in user_devices."),
    ] = None,
    others_connected: Annotated[
        bool, typer.Option("--others-connected", help="Other programs are connected to that database; let them be.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and change nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="The other tool is stopped and stays stopped; do not ask.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Adopt the paired sessions of GOWA, wuzapi or another whatsmeow tool, and the devices of user_devices."""
    home = current_home()
    address = _address(source, from_env, from_file)
    chosen, base_urls = _names(name, names_file), dict(_pair(each, "--base-url") for each in base_url or [])
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(home.path))
        opened = _open(address, stack.enter_context(_workplace(home)), others_connected=others_connected)
        stack.callback(opened.close)
        store = Store(whatsmeow_url(home, load_settings(home)))
        stack.callback(store.close)
        adoption = Adoption(opened, store, fleet, CredentialSeal(home.credentials_key), base_urls)
        steps = adoption.plan(chosen)
        if dry_run:
            _tell(opened, adoption, [*steps], signs=opened.signs_of_life(), dry_run=True, as_json=as_json)
            return
        opened.require_idle()
        _confirm(opened, steps, yes=yes)
        done, trouble = _carry_out(adoption, steps)
        _tell(opened, adoption, done, signs=[], dry_run=False, as_json=as_json)
    if trouble is not None:
        raise trouble
    failed = sum(step.outcome == "failed" for step in done)
    if failed:
        raise Refused(
            f"{failed} of {len(done)} were not adopted; the others were.",
            "The reasons stand above. The same command again takes up what is missing.",
            code="some_not_adopted",
        )


def _carry_out(adoption: Adoption, steps: list[Step]) -> tuple[list[Step], SalamanderError | None]:
    """Return what came of each step; and why it ended early, if it did: what is left stays planned."""
    done: list[Step] = []
    try:
        done.extend(adoption.carry_out(steps))
    except SalamanderError as error:
        return [*done, *steps[len(done) :]], error
    return done, None


def _address(source: str | None, variable: str | None, file: Path | None) -> str:
    """Return where to adopt from; a URL with a password does not come as an argument."""
    if sum(each is not None for each in (source, variable, file)) != 1:
        raise UsageWrong("One source is needed.", "Give --from SOURCE, --from-env VARIABLE or --from-file FILE.")
    if variable is not None:
        if not (found := os.environ.get(variable)):
            raise Refused(f"The environment variable {variable} is not set.", code="bad_source")
        return found.strip()
    if file is not None:
        try:
            return file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{file} cannot be read: {type(error).__name__}.", code="bad_source") from None
    assert source is not None  # noqa: S101 - exactly one is given
    if source == "-":
        return sys.stdin.readline().strip()
    if _is_postgres(source) and read_dsn(source).get("password"):
        raise Refused(
            "A URL with a password must not be an argument: it would stand in the process list.",
            "Put it into an environment variable and name that with --from-env, or into a file (--from-file), or give"
            " it on standard input (--from -).",
            code="bad_source",
        )
    return source


def _is_postgres(address: str) -> bool:
    return address.startswith(("postgres://", "postgresql://")) or "dbname=" in address or "host=" in address


def _open(address: str, workplace: Path, *, others_connected: bool) -> Source:
    if _is_postgres(address):
        return PostgresSource(address, others_connected=others_connected)
    # GOWA and others write a SQLite file as file:PATH?OPTIONS.
    path = address.partition("?")[0].removeprefix("file:") if address.startswith("file:") else address
    return SqliteSource(Path(path).expanduser().absolute(), workplace)


@contextlib.contextmanager
def _workplace(home: Home) -> Iterator[Path]:
    """Give a private directory to the one adoption that may run; what a killed one left there goes first."""
    directory = home.run / "adopt"
    with (home.run / "adopt.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused("Another adoption runs on this home.", "Wait for it.", code="adopting") from None
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _names(options: list[str] | None, file: Path | None) -> dict[str, str]:
    lines = list(options or [])
    if file is not None:
        try:
            written = file.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{file} cannot be read: {type(error).__name__}.", code="bad_mapping") from None
        lines += [line for line in written if line.strip() and not line.lstrip().startswith("#")]
    pairs = [_pair(line, "--name") for line in lines]
    names = dict(pairs)
    if len(names) < len(pairs):
        raise Refused("The same session is named twice.", code="bad_mapping")
    return names


def _pair(text: str, option: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip() or not value.strip():
        raise UsageWrong(f"{text!r} is not of the form that {option} takes.", "Write it as WHO=VALUE.")
    return key.strip(), value.strip()


def _confirm(source: Source, steps: list[Step], *, yes: bool) -> None:
    """Have the operator say that the other tool is stopped, when there is anything to do."""
    planned = [step for step in steps if step.outcome == "planned"]
    if yes or not planned:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{_STOP_IT} Nobody confirmed that it is stopped.", "Say so with --yes.", code="not_confirmed")
    err.print(_STOP_IT, markup=False)
    err.print(f"As far as can be seen it is stopped: {source.how_judged}.", markup=False)
    question = f"Is it stopped for good, and shall {len(planned)} devices be adopted from {source.name}?"
    if not typer.confirm(question, default=False, err=True):
        raise Refused("Nothing was changed.", "See what would be done: --dry-run.", code="not_confirmed")


def _tell(
    source: Source, adoption: Adoption, steps: list[Step], *, signs: list[str], dry_run: bool, as_json: bool
) -> None:
    """Tell what was done or would be."""
    counts = Counter(step.outcome for step in steps)
    if as_json:
        version = store_version(source)
        print_json(
            {
                "source": source.name,
                "store_version": version.number if version is not None else None,
                "dry_run": dry_run,
                "how_judged": source.how_judged,
                "signs_of_life": signs,
                "warnings": adoption.warnings,
                **{outcome: counts[outcome] for outcome in ("planned", "adopted", "skipped", "failed")},
                "devices": [_public(step) for step in steps],
            }
        )
        return
    for warning in adoption.warnings:
        err.print(f"Warning: {warning}", markup=False)
    print_table(
        f"Adoption from {source.name}",
        ("device", "platform", "companion", "contacts", "outcome", "why"),
        [
            (
                step.name,
                step.platform,
                step.jid,
                step.session.rows.get("whatsmeow_sessions", 0) if step.session is not None else "",
                step.outcome,
                step.reason,
            )
            for step in steps
        ],
        "It holds no device.",
    )
    if dry_run:
        in_use = f"It is in use, so nothing would be adopted now: {' '.join(signs)}" if signs else "It is not in use:"
        out.print(in_use if signs else f"{in_use} {source.how_judged}.", markup=False)
        out.print("Nothing was changed.")
    elif counts["adopted"]:
        out.print(as_typed(f"Adopted {counts['adopted']}. They connect now: run.py device list"), markup=False)
        out.print("Keep the other tool from starting again.")


def _public(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "platform": step.platform,
        "jid": step.jid,
        "linked_at": step.session.linked_at if step.session is not None else None,
        "rows": dict(step.session.rows) if step.session is not None else {},
        "limits": vars(step.limits) if step.limits is not None else None,
        "outcome": step.outcome,
        "reason": step.reason,
    }
