"""opt-out …, device limit, and what status tells about them: care for the numbers, as its operator sees it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.care import Rules
from actors.care_requests import NUMBERS_LIMIT
from actors.fleet import Fleet
from commands.numbers_file import read_numbers
from commands.output import AsJson, current_home, err, out, print_json, print_table, reported
from config.errors import Refused
from config.settings import Settings, load_settings
from storage.care import Limits, OptedOut
from storage.devices import Device

app = typer.Typer(no_args_is_help=True, help="Numbers that asked not to be written to. Every route obeys.")

Numbers = Annotated[list[str], typer.Argument(metavar="NUMBER...", help="Numbers, with country code.")]


@app.command("add")
@reported
def add(numbers: Numbers, as_json: AsJson = False) -> None:
    """Write to these numbers no more; what is queued for them is cancelled."""
    with Fleet(current_home().path) as fleet:
        changed = _opt_out(fleet, numbers, "operator")
    _tell(changed, len(set(numbers)), as_json=as_json)


@app.command("remove")
@reported
def remove(numbers: Numbers, as_json: AsJson = False) -> None:
    """Let these numbers be written to again."""
    removed = 0
    with Fleet(current_home().path) as fleet:
        for some in _portions(numbers):
            removed += fleet.opt_in(some)
    if as_json:
        print_json({"removed": removed})
    else:
        out.print(f"Removed {removed} of {len(set(numbers))} from the opt-out list.")


@app.command("list")
@reported
def list_numbers(
    limit: Annotated[int | None, typer.Option(min=1, help="How many of the newest (default: all).")] = None,
    as_json: AsJson = False,
) -> None:
    """List the numbers that have opted out, newest first."""
    with Fleet(current_home().path) as fleet:
        rows = fleet.opt_outs() if limit is None else fleet.opt_outs(limit)
    if as_json:
        print_json(rows)
        return
    print_table(
        "Opted out",
        ("number", "since", "by", "told", "with"),
        [(row["number"], row["at"], row["source"], row["device"], row["word"]) for row in rows],
        "Nobody has opted out.",
    )


@app.command("import")
@reported
def import_file(
    file: Annotated[Path, typer.Argument(help="One number a line, or CSV with a column named number.")],
    skip_refused: Annotated[bool, typer.Option(help="Take the good lines of a file that has bad ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put every number of a file on the list."""
    home = current_home()
    with Fleet(home.path) as fleet:
        lines = read_numbers(file, load_settings(home).default_region)
        refused = [line for line in lines if line.number is None]
        for line in refused:
            if as_json:
                print_json({"line": line.line, "problem": line.problem})
            else:
                err.print(f"line {line.line}: {line.problem}", markup=False)
        if refused and not skip_refused:
            raise Refused(
                f"{file} has {len(refused)} lines without a usable number; nothing was changed.",
                "Correct them, or take the others with --skip-refused.",
                code="bad_csv",
            )
        numbers = sorted({line.number for line in lines if line.number is not None})
        changed = _opt_out(fleet, numbers, "import")
    _tell(changed, len(numbers), as_json=as_json)


def _opt_out(fleet: Fleet, numbers: list[str], source: str) -> OptedOut:
    added = cancelled = 0
    for some in _portions(numbers):
        changed = fleet.opt_out(some, source=source)
        added, cancelled = added + changed.added, cancelled + changed.cancelled
    return OptedOut(added, cancelled)


def _portions(numbers: list[str]) -> list[list[str]]:
    rest = iter(dict.fromkeys(numbers))
    return list(iter(lambda: list(islice(rest, NUMBERS_LIMIT)), []))


def _tell(changed: OptedOut, asked: int, *, as_json: bool) -> None:
    known = max(0, asked - changed.added)
    if as_json:
        print_json({"added": changed.added, "known": known, "cancelled": changed.cancelled})
        return
    out.print(f"Opted out {changed.added} numbers ({known} had already); cancelled {changed.cancelled} messages.")


# --- limits of one device --------------------------------------------------------------------------------


@reported
def limit(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    gap: Annotated[float | None, typer.Option(help="Seconds between two sends, at least; 0: none.")] = None,
    jitter: Annotated[float | None, typer.Option(help="Up to so many seconds more, at random; 0: none.")] = None,
    per_hour: Annotated[int | None, typer.Option(help="Messages in any 60 minutes; 0: any number.")] = None,
    per_day: Annotated[int | None, typer.Option(help="Messages in any 24 hours; 0: any number.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Follow the settings again in all that is not given.")] = False,
    as_json: AsJson = False,
) -> None:
    """Limit what one device sends; without options, show its limits. They come before the settings."""
    home = current_home()
    given = Limits(gap, jitter, per_hour, per_day)
    with Fleet(home.path) as fleet:
        if reset or given != Limits():
            fleet.set_limits(name, given, reset=reset)
        device = fleet.device(name)
    rows = _limits_of(device, load_settings(home))
    if as_json:
        print_json(
            {"name": name, **{key: value for key, value, _ in rows}, "own": [key for key, _, own in rows if own]}
        )
        return
    print_table(
        f"What {name} keeps to",
        ("limit", "value", "from"),
        [(key, value or "none", "its own" if own else "the settings") for key, value, own in rows],
        "",
    )


def _limits_of(device: Device, settings: Settings) -> list[tuple[str, float, bool]]:
    """Return each limit that holds for a device, and whether it is its own."""
    own = device.limits
    rules = Rules.of(settings).with_limits(own)
    return [
        ("gap_seconds", rules.gap_seconds, own.gap_seconds is not None),
        ("jitter_seconds", rules.jitter_seconds, own.jitter_seconds is not None),
        ("per_hour", rules.per_hour, own.per_hour is not None),
        ("per_day", rules.per_day, own.per_day is not None),
    ]


# --- status ----------------------------------------------------------------------------------------------


def care_report(settings: Settings, overview: dict[str, Any]) -> dict[str, Any]:
    """Return what of the care for the numbers is on, with stable keys; 0, null and empty mean off."""
    return {
        "gap_seconds": settings.send_gap_seconds,
        "jitter_seconds": settings.send_jitter_seconds,
        "per_hour": settings.sends_per_hour,
        "per_day": settings.sends_per_day,
        "devices_with_limits": overview["devices_with_limits"],
        "warm_up_days": settings.warm_up_days,
        "warm_up_messages": settings.warm_up_messages if settings.warm_up_days else None,
        "quiet_hours": str(settings.quiet) if settings.quiet else None,
        "urgent_priority": settings.urgent_priority if settings.quiet else None,
        "opt_out_words": list(settings.opt_out_words),
        "opted_out": overview["opted_out"],
        "check_recipients": settings.check_recipients,
        "in_doubt_patience_seconds": settings.in_doubt_patience_seconds,
    }


def care_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the same for people: what it is, and whether and how it is on."""
    paces = [
        f"{report['gap_seconds']:g} s between sends" if report["gap_seconds"] else "",
        f"up to {report['jitter_seconds']:g} s more at random" if report["jitter_seconds"] else "",
        f"{report['per_hour']} an hour" if report["per_hour"] else "",
        f"{report['per_day']} a day" if report["per_day"] else "",
    ]
    pacing = ", ".join(pace for pace in paces if pace) or "off"
    if report["devices_with_limits"]:
        pacing += f"; {report['devices_with_limits']} devices have limits of their own"
    days, patience = report["warm_up_days"], report["in_doubt_patience_seconds"]
    quiet = report["quiet_hours"]
    return [
        ("pacing", pacing),
        ("warm-up", f"{days} days, {report['warm_up_messages']} messages more each day" if days else "off"),
        ("quiet hours", f"{quiet}, but for priority {report['urgent_priority']} and above" if quiet else "off"),
        ("opted out", f"{report['opted_out']} numbers; by word: {', '.join(report['opt_out_words']) or 'off'}"),
        ("check of recipients", "on" if report["check_recipients"] else "off"),
        ("patience in doubt", f"sent again after {patience:g} s" if patience else "off: resolved by you or a receipt"),
    ]
