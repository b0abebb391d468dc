"""device …: add, list, show, pair, refresh, pause, resume, remove."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import segno
import typer

from actors.fleet import Fleet
from actors.platforms import contract_of
from actors.validation import check_proxy
from commands.account_check import check_device
from commands.output import AsJson, as_typed, current_home, err, out, print_json, print_table, reported
from commands.webhooks import webhook
from config.durations import ago
from config.errors import NoAnswer, Refused
from storage.devices import Device
from supervisors.account import account_of
from supervisors.policy import advice_for

app = typer.Typer(no_args_is_help=True, help="Devices: WhatsApp companions and platform accounts.")

Name = Annotated[str, typer.Argument(help="The device's name.")]


def _fleet(timeout: float = 30.0) -> Fleet:
    return Fleet(current_home().path, timeout=timeout)


@app.command("add")
@reported
def add(
    name: Name,
    platform: Annotated[str | None, typer.Option(help="The platform; leave out for WhatsApp.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The platform account's API address.")] = None,
    credentials_file: Annotated[
        Path | None,
        typer.Option(help="Read credentials from a file, one NAME=VALUE a line; - reads standard input."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(help="An http or socks5 proxy for this device (no password; see --proxy-from-env)."),
    ] = None,
    proxy_from_env: Annotated[
        str | None,
        typer.Option(help="Read the proxy, which may hold a password, from this environment variable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a device. Credentials come by prompt, environment (SALAMANDER_CREDENTIAL_…) or file, never as arguments."""
    credentials = _credentials(platform, credentials_file) if platform is not None else None
    chosen_proxy = _proxy(proxy, proxy_from_env)
    with _fleet() as fleet:
        device_id = fleet.add_device(
            name, platform=platform, base_url=base_url, credentials=credentials, proxy=chosen_proxy
        )
    if as_json:
        print_json({"id": device_id, "name": name, "platform": platform or "whatsapp"})
    else:
        then = "run.py device pair " + name if platform is None else f"run.py send {name} +NUMBER TEXT"
        out.print(f"Added {name}. Next: {as_typed(then)}", markup=False)


def _credentials(platform: str, file: Path | None) -> dict[str, str]:
    """Gather what the platform needs: from the file, else the environment, else by asking at a terminal."""
    contract = contract_of(platform)
    given: dict[str, str] = {}
    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else _content(str(file))
        for line in text.splitlines():
            key, separator, value = line.partition("=")
            if separator and not line.lstrip().startswith("#"):
                given[key.strip().lower()] = value.strip()
    for each in contract.credential_fields:
        variable = f"SALAMANDER_CREDENTIAL_{each.name.upper()}"
        if each.name not in given and variable in os.environ:
            given[each.name] = os.environ[variable]
        if each.name not in given and sys.stdin.isatty() and str(file) != "-":
            answer = typer.prompt(
                each.title + " (the path of its file)" * each.is_file,
                default="" if not each.required else None,
                hide_input=each.secret and not each.is_file,
                err=True,
            )
            if answer:
                given[each.name] = str(answer)
        if each.is_file and given.get(each.name):
            given[each.name] = _content(given[each.name])
        if each.required and not given.get(each.name):
            raise Refused(
                f"{contract.title} needs the credential {each.name!r} ({each.title}).",
                f"Set {variable}, or give --credentials-file.",
                code="credential_missing",
            )
    return given


def _content(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"The credentials file cannot be read: {type(error).__name__}.", code="bad_file") from None


def _proxy(proxy: str | None, variable: str | None) -> str | None:
    if variable is not None:
        value = os.environ.get(variable)
        if not value:
            raise Refused(f"The environment variable {variable} is not set.", code="bad_proxy")
        proxy = value
    elif proxy is not None and "@" in proxy:
        raise Refused(
            "A proxy with a password must not be an argument: it would stand in the process list.",
            "Put it into an environment variable and name that with --proxy-from-env.",
            code="bad_proxy",
        )
    check_proxy(proxy)
    return proxy


@app.command("list")
@reported
def list_devices(as_json: AsJson = False) -> None:
    """List the devices with their states."""
    with _fleet() as fleet:
        rows, backlog = fleet.devices(), fleet.backlog()
    if as_json:
        print_json([_public(device, backlog) for device in rows])
        return
    print_table(
        "Devices",
        ("name", "platform", "state", "since", "waiting", "why"),
        [
            (
                device.name,
                device.platform or "whatsapp",
                device.state,
                ago(device.state_since),
                backlog.get(device.id, {}).get("waiting", 0),
                device.reason,
            )
            for device in rows
        ],
        "No devices yet: run.py device add NAME",
    )


@app.command("show")
@reported
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one device: what is wrong, since when, what was tried, what comes next, what you can do."""
    with _fleet() as fleet:
        device = fleet.device(name)
        backlog = fleet.backlog()
        restarts = fleet.restarts(device=name, limit=10)
    if as_json:
        print_json({**_public(device, backlog), "restarts": restarts, "advice": advice_for(device)})
        return
    public = _public(device, backlog)
    out.print(f"{device.name}: {device.state} for {ago(device.state_since).removesuffix(' ago')}", style="bold")
    for line in account_of(device, public["waiting"], public["in_doubt"]):
        words = ": ".join(part for part in (ago(line.moment), line.words) if part)
        out.print(f"  {line.about:12} {as_typed(words)}", markup=False)
    print_table(
        "What was tried",
        ("at", "cause", "attempt", "tried", "outcome", "seconds"),
        [(row["at"], row["cause"], row["attempt"], row["tried"], row["outcome"], row["seconds"]) for row in restarts],
        "  It was never restarted.",
    )


def _public(device: Device, backlog: dict[int, Any]) -> dict[str, Any]:
    """Return a device without anything secret."""
    values = asdict(device)
    for secret in ("credentials", "proxy", "pairing_qr", "pairing_code"):
        del values[secret]
    values["platform"] = device.platform or "whatsapp"
    values["has_proxy"] = device.proxy is not None
    unfinished = backlog.get(device.id, {})
    values["waiting"] = unfinished.get("waiting", 0)
    values["waiting_since"] = unfinished.get("oldest")
    values["in_doubt"] = unfinished.get("in_doubt", 0)
    return values


@app.command("fallback")
@reported
def fallback(
    name: Name,
    others: Annotated[list[str] | None, typer.Argument(help="Who stands in, in this order; none: nobody does.")] = None,
) -> None:
    """Name devices that take over messages which this device's route definitely does not take."""
    with _fleet() as fleet:
        fleet.set_fallbacks(name, others or [])
    out.print(f"{name}: {', '.join(others) if others else 'nobody'} stands in.", markup=False)


@app.command("pair")
@reported
def pair(
    name: Name,
    code: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Pair by a code typed on this number's phone.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until a phone is linked.")] = True,
    as_json: AsJson = False,
) -> None:
    """Link a phone: scan the QR under Linked devices, or type the code there."""
    with _fleet() as fleet:
        fleet.tell_device(name, "pair", number=code)
        shown = ""
        deadline = time.monotonic() + 180
        began = False
        while time.monotonic() < deadline:
            device = fleet.device(name)
            if device.state == "online":
                if as_json and wait:
                    print_json({"name": name, "state": "online", "jid": device.jid})
                elif not as_json:
                    out.print(f"Linked: {name} is {device.jid}.", markup=False)
                return
            began = began or device.state == "pairing"
            if began and device.state != "pairing":
                raise Refused(
                    f"The pairing of {name} ended: {device.reason}",
                    f"Try again: run.py device pair {name}",
                    code="pairing_ended",
                )
            text = device.pairing_code if code else device.pairing_qr
            if text and text != shown:
                shown = text
                _show_pairing(name, text, by_code=bool(code), as_json=as_json)
                if not wait:
                    return
            time.sleep(0.1)
    raise NoAnswer(f"No phone was linked to {name} in time.", f"Try again: run.py device pair {name}")


def _show_pairing(name: str, text: str, *, by_code: bool, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "code": text} if by_code else {"name": name, "qr": text})
    elif by_code:
        out.print(f"On the phone: Linked devices, Link with phone number instead, then type {text}", markup=False)
    else:
        segno.make_qr(text).terminal(compact=True)
        err.print("On the phone: Linked devices, Link a device, and scan. A new code follows when this one is old.")


app.command("test")(check_device)


@app.command("refresh")
@reported
def refresh(name: Name, as_json: AsJson = False) -> None:
    """Reload a WhatsApp device's stored session now: the same five steps as every restart."""
    with _fleet() as fleet:
        request = fleet.tell_device(name, "refresh")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            row = fleet.restart_of(request)
            if row is not None:
                break
            time.sleep(0.1)
        else:
            raise NoAnswer(f"{name} did not finish its refresh within 60 seconds.", f"See run.py device show {name}.")
    if as_json:
        print_json({"name": name, "outcome": row["outcome"], "seconds": row["seconds"]})
    elif row["outcome"] == "ok":
        out.print(f"Refreshed {name} in {row['seconds']:.2f} s.", markup=False)
    if row["outcome"] != "ok":
        raise Refused(
            f"{name} could not be refreshed: {row['outcome']}",
            f"See run.py device show {name}.",
            code="refresh_failed",
        )


def _command(command: str, done: str, wait_for: Callable[[Device], bool] | None) -> Callable[[str], None]:
    def run(name: Name) -> None:
        with _fleet() as fleet:
            fleet.tell_device(name, command)
            deadline = time.monotonic() + 30
            while wait_for is not None and time.monotonic() < deadline and not wait_for(fleet.device(name)):
                time.sleep(0.1)
        out.print(f"{done} {name}.", markup=False)

    run.__doc__ = {
        "pause": "Pause a device: it disconnects, its messages wait.",
        "resume": "Resume a paused device.",
        "remove": "Remove a device: it is unlinked, what it has still to send is cancelled.",
    }[command]
    return reported(run)


app.command("pause")(_command("pause", "Paused", lambda device: device.state == "paused"))
app.command("resume")(_command("resume", "Resumed", lambda device: device.state != "paused"))
app.command("remove")(_command("remove", "Removed", None))
app.command("webhook")(webhook)
