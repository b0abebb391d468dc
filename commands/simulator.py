"""simulator …: drive the loopback WhatsApp and platforms of a daemon that runs with ``--simulator``."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.fleet import Fleet
from commands.output import AsJson, current_home, out, print_json, print_table, reported
from config.errors import NotFound
from simulator.client import SimulatorClient
from simulator.platforms.server import DEFAULT_ACCOUNTS

app = typer.Typer(no_args_is_help=True, help="Drive the loopback WhatsApp and platforms (tests and demos only).")
phone = typer.Typer(no_args_is_help=True, help="Simulated phones.")
app.add_typer(phone, name="phone")

Number = Annotated[str, typer.Argument(help="A phone number, with country code.")]


def _client() -> SimulatorClient:
    return SimulatorClient(current_home().simulator)


def _digits(number: str) -> str:
    return "".join(character for character in number if character.isdigit())


@app.command()
@reported
def info(as_json: AsJson = False) -> None:
    """Show where the stand-ins listen and whom they make clients trust."""
    facts = {**_client().info(), "accounts": DEFAULT_ACCOUNTS}
    if as_json:
        print_json(facts)
    else:
        print_table("Simulator", ("what", "value"), sorted(facts.items()), "")


@phone.command("add")
@reported
def phone_add(number: Number) -> None:
    """Add a phone with an account of its own."""
    _client().add_phone(_digits(number))
    out.print(f"The phone {_digits(number)} is on.")


@phone.command("on")
@reported
def phone_on(number: Number) -> None:
    """Switch a phone on: it receives what waited and answers with receipts."""
    _client().phone_power(_digits(number), on=True)


@phone.command("off")
@reported
def phone_off(number: Number) -> None:
    """Switch a phone off: it answers no receipts until it is on again."""
    _client().phone_power(_digits(number), on=False)


@app.command()
@reported
def scan(
    number: Number,
    qr: Annotated[str | None, typer.Option(help="The QR text; default: the one device that waits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a phone scan the QR of the device that waits to be linked."""
    jid = _client().scan(_digits(number), qr or _waiting_qr())
    print_json({"jid": jid}) if as_json else out.print(f"{_digits(number)} linked {jid}.", markup=False)


@app.command("enter-code")
@reported
def enter_code(number: Number, code: Annotated[str, typer.Argument(help="The code.")], as_json: AsJson = False) -> None:
    """Let a phone type a pairing code."""
    jid = _client().enter_code(_digits(number), code)
    print_json({"jid": jid}) if as_json else out.print(f"{_digits(number)} linked {jid}.", markup=False)


@app.command()
@reported
def inbox(number: Number, as_json: AsJson = False) -> None:
    """Show what a phone received and decrypted."""
    rows = _client().inbox(_digits(number))
    if as_json:
        print_json(rows)
        return
    print_table(
        "Inbox",
        ("id", "sender", "kind", "text"),
        [(row["id"], row["sender"], row.get("kind"), row["text"]) for row in rows],
        "Nothing was received.",
    )


@app.command()
@reported
def say(
    sender: Annotated[str, typer.Argument(metavar="FROM", help="The phone that speaks.")],
    device: Annotated[str, typer.Argument(help="The device that is spoken to.")],
    text: Annotated[str, typer.Argument(help="What it says.")],
) -> None:
    """Let a phone send a message to a device."""
    _client().say(_digits(sender), _jid_of(device), text)


@app.command("platform-log")
@reported
def platform_log(name: Annotated[str, typer.Argument(help="wablas or whacenter.")], as_json: AsJson = False) -> None:
    """Show the sends that a loopback platform accepted."""
    rows = _client().platform_log(name)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            out.print(str(row), markup=False, soft_wrap=True)


@app.command()
@reported
def fault(
    kind: Annotated[str, typer.Argument(help="See simulator faults.")],
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    platform: Annotated[str | None, typer.Option(help="A fault of this loopback platform instead.")] = None,
    seconds: Annotated[float | None, typer.Option(help="For so long; default: until cleared, or once.")] = None,
) -> None:
    """Cause a fault."""
    client = _client()
    if platform is not None:
        client.platform_fault(platform, kind, seconds)
    else:
        client.fault(kind, jid=_jid_of(device) if device else None, seconds=seconds)
    out.print(f"Fault: {kind}.", markup=False)


@app.command()
@reported
def faults(as_json: AsJson = False) -> None:
    """List the kinds of faults."""
    client = _client()
    known, of_platforms = client.faults(), client.platform_faults()
    if as_json:
        print_json({**known, "platforms": of_platforms})
        return
    columns = ("kind", "what happens")
    print_table("Faults of WhatsApp", columns, sorted(known.items()), "")
    print_table("Faults of a platform (--platform NAME)", columns, sorted(of_platforms.items()), "")


@app.command()
@reported
def stats(as_json: AsJson = False) -> None:
    """Show what the loopback WhatsApp counted."""
    counted = _client().stats()
    print_json(counted) if as_json else print_table("Counts", ("what", "value"), sorted(counted.items()), "")


def _waiting_qr() -> str:
    """Return the QR that the one waiting device shows, as a phone would see it on the screen."""
    with Fleet(current_home().path) as fleet:
        waiting = [device for device in fleet.devices() if device.pairing_qr]
    if len(waiting) != 1:
        raise NotFound(
            f"{len(waiting)} devices show a QR.",
            "Name one with --qr TEXT (run.py device pair NAME --json shows it).",
        )
    return waiting[0].pairing_qr or ""


def _jid_of(device: str) -> str:
    """Return a device's companion; a number is taken as it is."""
    if device.lstrip("+").isdigit():
        return _digits(device)
    with Fleet(current_home().path) as fleet:
        jid = fleet.device(device).jid
    if jid is None:
        raise NotFound(f"{device} has no phone linked.", f"Link one: run.py device pair {device}")
    return jid
