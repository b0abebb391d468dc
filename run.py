#!/usr/bin/env python3
"""Salamander's command line.

The way of a message starts here: ``send`` asks the router (actors/fleet.py, actors/router.py), whose hint reaches the
device (actors/whatsapp/device.py), which sends (actors/whatsapp/client.py).
"""

from __future__ import annotations

from commands import interrupts

# isort: split
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from actors.fleet import Fleet
from actors.messages import Media, MessageAccepted, MessageRejected, SendMessage
from commands import adopt, care, daemon, demo, devices, endpoints, keys, logs, messages, shards, simulator, users
from commands.csv_file import Line, read_csv
from commands.moments import read_moment
from commands.output import AsJson, choose_home, current_home, err, out, print_json, reported
from config.daemon import read_daemon_file
from config.errors import NoAnswer, Refused, UsageWrong
from config.settings import load_settings
from config.version import VERSION
from storage.outbox import FINAL_STATES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Salamander: a self-healing runtime for fleets of WhatsApp devices.",
)
app.command("start")(daemon.start)
app.command("stop")(daemon.stop)
app.command("status")(daemon.status)
devices.app.command("limit")(care.limit)
app.add_typer(devices.app, name="device")
app.add_typer(care.app, name="opt-out")
app.command("messages")(messages.messages)
app.command("message")(messages.message)
app.command("cancel")(messages.cancel)
app.command("resolve")(messages.resolve)
app.command("adopt")(adopt.adopt)
app.add_typer(keys.app, name="key")
app.add_typer(shards.app, name="shard")
app.add_typer(endpoints.app, name="webhook")
app.add_typer(users.app, name="user")
app.command("dashboard")(users.dashboard)
app.command("logs")(logs.logs)
app.command("restarts")(logs.restarts)
app.command("events")(logs.events)
app.command("demo")(demo.demo)
app.add_typer(simulator.app, name="simulator")

#: Messages handed to the router at once from a file.
_BATCH = 200


def _tell_version(asked: bool) -> None:
    if asked:
        out.print(f"salamander {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    home: Annotated[
        Path | None, typer.Option(help="Where state lives (default: SALAMANDER_HOME, or ~/.salamander).")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Tell the version, and end.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Choose the home for the command that follows."""
    choose_home(home)


@app.command()
@reported
def send(
    device: Annotated[str | None, typer.Argument(help="The sending device.")] = None,
    to: Annotated[str | None, typer.Argument(help="The recipient, with country code: +60123456789.")] = None,
    text: Annotated[str | None, typer.Argument(help="The text, or the media's caption.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Send a file with the columns device,to,text[,media,key].")] = None,
    media: Annotated[str | None, typer.Option(help="Send the file at this https URL.")] = None,
    kind: Annotated[str, typer.Option("--as", help="image, document, video or audio (default: by its name).")] = "",
    template: Annotated[bool, typer.Option("--template", help="TEXT is the JSON of a template message.")] = False,
    key: Annotated[str | None, typer.Option(help="An idempotency key: the same key never sends twice.")] = None,
    priority: Annotated[int, typer.Option(help="Higher overtakes on the device's lane.")] = 0,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Send it then: ISO time with zone.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Not sent later than then.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is sent, or failed, or in doubt.")] = False,
    skip_refused: Annotated[
        bool, typer.Option(help="With --csv: send the good lines of a file that has bad ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a message, or every message of a CSV file."""
    when: dict[str, Any] = {"not_before": read_moment("--at", at), "expires_at": read_moment("--expires", expires)}
    if csv is not None:
        common = {**when, "priority": priority}
        _send_file(csv, device, common, skip_refused=skip_refused, wait=wait, as_json=as_json)
        return
    if device is None or to is None or (text is None and media is None):
        raise UsageWrong("DEVICE, TO and TEXT are needed.", "run.py send DEVICE TO TEXT, or --csv FILE.")
    with Fleet(current_home().path) as fleet:
        message_id = fleet.send(
            device,
            to,
            text or "",
            media=Media(media, kind) if media else None,
            template=template,
            idempotency_key=key,
            priority=priority,
            **when,
        )
        row = _await_messages(fleet, [message_id], 180)[message_id] if wait else {"state": "queued", "reason": ""}
    if as_json:
        print_json({"id": message_id, "state": row["state"], "reason": row["reason"]})
    else:
        out.print(f"Message {message_id} is {row['state']}. {row['reason']}".rstrip(), markup=False)
    if row["state"] in {"failed", "in_doubt", "expired", "cancelled"}:
        raise Refused(
            f"Message {message_id} is {row['state']}.", f"See run.py message {message_id}.", code=row["state"]
        )


def _send_file(
    path: Path, device: str | None, common: dict[str, Any], *, skip_refused: bool, wait: bool, as_json: bool
) -> None:
    """Check a whole file, then send it in batches; the same file again sends nothing twice.

    ``common`` is what all its messages have: their priority, and when they may be sent.
    """
    home = current_home()
    running = read_daemon_file(home)
    with Fleet(home.path, timeout=120) as fleet:
        lines = read_csv(
            path,
            device=device,
            known_devices={each.name: each.platform for each in fleet.devices()},
            region=load_settings(home).default_region,
            loopback=running is not None and running.simulator,
        )
        refused = [line for line in lines if line.message is None]
        if refused and not skip_refused:
            _tell_refused(refused, as_json=as_json)
            raise Refused(
                f"{path} has {len(refused)} lines that cannot be sent (first: line {refused[0].number},"
                f" {refused[0].problem}); nothing was sent.",
                "Correct them, or send the others with --skip-refused.",
                code="bad_csv",
            )
        good = [line for line in lines if line.message is not None]
        ids: list[int] = []
        with _progress("Accepting") as progress:
            task = progress.add_task("Accepting", total=len(good))
            for first in range(0, len(good), _BATCH):
                some = good[first : first + _BATCH]
                answers = _accepted(fleet, [replace(line.message, **common) for line in some if line.message], len(ids))
                for line, answer in zip(some, answers, strict=True):
                    if isinstance(answer, MessageRejected):
                        refused.append(Line(line.number, None, answer.reason))
                    else:
                        ids.append(answer.id)
                progress.advance(task, len(some))
        if wait:
            _await_messages(fleet, ids, 600)
    _tell_refused(refused, as_json=as_json)
    if as_json:
        print_json({"accepted": len(ids), "refused": len(refused), "ids": ids})
    else:
        out.print(f"Accepted {len(ids)} messages, refused {len(refused)} lines.")
    if refused:
        raise Refused(f"{len(refused)} lines were refused.", "They are listed above.", code="lines_refused")


def _accepted(fleet: Fleet, messages: list[SendMessage], before: int) -> list[MessageAccepted | MessageRejected]:
    """Hand over some of a file's messages; ``before`` of it were accepted already."""
    try:
        return fleet.send_batch(messages)
    except NoAnswer as error:
        sentence = f"{before} messages were accepted. Whether the next {len(messages)} were is not known."
        next_step = "Send the same file again: what was accepted of it is not sent twice."
        raise NoAnswer(f"{error.sentence} {sentence}", next_step) from None


def _tell_refused(refused: list[Line], *, as_json: bool) -> None:
    for line in refused:
        if as_json:
            print_json({"line": line.number, "problem": line.problem})
        else:
            err.print(f"line {line.number}: {line.problem}", markup=False)


def _progress(what: str) -> Progress:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    # Elsewhere than at a terminal a bar would only put an empty line before an error.
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def _await_messages(fleet: Fleet, message_ids: list[int], seconds: float) -> dict[int, Any]:
    """Wait until each message has left the queue for an outcome, and return their rows."""
    settled = FINAL_STATES | {"in_doubt"}
    deadline = time.monotonic() + seconds
    rows: dict[int, Any] = {}
    with _progress("Sending") as progress:
        task = progress.add_task("Sending", total=len(message_ids))
        while time.monotonic() < deadline:
            rows = fleet.states(message_ids)
            finished = sum(row["state"] in settled for row in rows.values())
            progress.update(task, completed=finished)
            if finished == len(message_ids):
                return rows
            time.sleep(0.1)
    raise NoAnswer("Not every message has an outcome yet; they stay queued.", "See run.py messages --state queued.")


def entry() -> None:
    """Run the command line: the wheel's command `salamander` begins here, too."""
    interrupts.let_commands_handle_them()
    app()


if __name__ == "__main__":
    entry()
