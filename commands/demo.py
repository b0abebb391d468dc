"""demo: the whole of Salamander in about a minute, on loopback, with proof that each message arrived exactly once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from actors.fleet import Fleet
from actors.messages import Media
from commands.daemon import start_in_background, stop_daemon
from commands.output import AsJson, err, out, print_json, print_table, reported
from config.errors import NoAnswer, SalamanderError
from config.home import Home
from config.logging import human_line
from simulator.client import SimulatorClient
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage.outbox import FINAL_STATES

_WHATSAPP_DEVICES = 5
_MESSAGES = 200
#: A one-pixel picture and a tiny document, served on loopback for the media messages.
_FILES = {
    "/parcel.png": (
        "image/png",
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
            "1f15c4890000000d49444154789c6360f8cf50000003010101a1d8d0c50000000049454e44ae426082"
        ),
    ),
    "/invoice.pdf": ("application/pdf", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"),
}


@dataclass
class Sent:
    """One message of the demo: what it says, to whom, and the id it was accepted under."""

    message_id: int
    device: str
    recipient: str
    text: str


@dataclass
class Report:
    """What the demo found."""

    accepted: int = 0
    delivered: int = 0
    lost: list[Sent] = field(default_factory=list)
    duplicated: list[Sent] = field(default_factory=list)
    in_doubt: int = 0
    restarts: list[dict[str, Any]] = field(default_factory=list)
    refreshes_of_platform_devices: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report for ``--json``."""
        return {
            "devices": {"whatsapp": _WHATSAPP_DEVICES, "platform": 2},
            "accepted": self.accepted,
            "delivered": self.delivered,
            "lost": len(self.lost),
            "duplicated": len(self.duplicated),
            "in_doubt": self.in_doubt,
            "restarts": self.restarts,
            "refreshes_of_platform_devices": self.refreshes_of_platform_devices,
            "seconds": round(self.seconds, 1),
        }


@reported
def demo(
    keep: Annotated[bool, typer.Option(help="Keep the demo's home directory.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pair five devices, send 200 messages, kill things meanwhile, and prove that each message arrived exactly once."""
    directory = Path(tempfile.mkdtemp(prefix="salamander-demo-"))
    home = Home(directory / "home")
    say = (lambda _text: None) if as_json else _say
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        home.create()
        report = _run(home, say)
    finally:
        with contextlib.suppress(SalamanderError):
            stop_daemon(home)
        if keep:
            say(f"The home is kept: {home.path}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report)
    if report.lost or report.duplicated or report.accepted != _MESSAGES:
        raise typer.Exit(1)


def _say(text: str) -> None:
    err.print(f"• {text}", markup=False)


def _run(home: Home, say: Callable[[str], None]) -> Report:
    started = time.monotonic()
    say("Starting PostgreSQL, the loopback WhatsApp and platforms, and the daemon …")
    start_in_background(home, simulator=True)
    simulator = SimulatorClient(home.simulator)
    with Fleet(home.path, timeout=60) as fleet, _media_server() as media:
        _add_devices(fleet, simulator, say)
        sent = _send_while_killing(home, fleet, simulator, media, say)
        say("Waiting for every message to have an outcome …")
        states = _await_outcomes(fleet, sent)
        report = _prove(fleet, simulator, sent, states)
        if not _quiet(say):
            _show_restart_log(home)
    report.seconds = time.monotonic() - started
    return report


def _quiet(say: Callable[[str], None]) -> bool:
    return say is not _say


def _add_devices(fleet: Fleet, simulator: SimulatorClient, say: Callable[[str], None]) -> None:
    info = simulator.info()
    for number in range(1, _WHATSAPP_DEVICES + 1):
        name, phone = f"shop-{number}", f"6012000000{number}"
        simulator.add_phone(phone)
        fleet.add_device(name)
        _pair(fleet, simulator, name, phone)
        say(f"Paired {name} with the phone {phone}: {fleet.device(name).jid}")
    credentials = DEFAULT_ACCOUNTS
    for platform in ("wablas", "whacenter"):
        name = f"{platform}-1"
        fleet.add_device(
            name, platform=platform, base_url=info["platforms"][platform], credentials=credentials[platform]
        )
        say(f"Added {name}")


def _pair(fleet: Fleet, simulator: SimulatorClient, name: str, phone: str) -> None:
    fleet.tell_device(name, "pair")
    qr = _until(lambda: fleet.device(name).pairing_qr, 60, f"{name} to show its QR")
    simulator.scan(phone, qr)
    _until(lambda: fleet.device(name).state == "online", 60, f"{name} to be online")


def _send_while_killing(
    home: Home, fleet: Fleet, simulator: SimulatorClient, media: str, say: Callable[[str], None]
) -> list[Sent]:
    """Send 200 mixed messages through the router; meanwhile a shard, a socket and the router are killed."""
    troubles: dict[int, Callable[[], None]] = {
        50: lambda: _kill(home, "shard-1", say),
        100: lambda: _reset(fleet, simulator, "shop-3", say),
        150: lambda: _kill(home, "router", say),
    }
    devices = [f"shop-{number}" for number in range(1, _WHATSAPP_DEVICES + 1)] + ["wablas-1", "whacenter-1"]
    sent: list[Sent] = []
    with _progress(say) as (progress, task):
        for number in range(_MESSAGES):
            if number in troubles:
                troubles[number]()
            device = devices[number % len(devices)]
            recipient = f"60199{number % 20:06d}1"
            text = f"Order {number:03d}: on its way to you 🚚"
            attached = None
            if number % 10 == 4:
                attached = Media(f"{media}/parcel.png")
            elif number % 10 == 9:
                attached = Media(f"{media}/invoice.pdf")
            message_id = fleet.send(device, recipient, text, media=attached)
            sent.append(Sent(message_id, device, recipient, text))
            progress.advance(task)
    return sent


def _kill(home: Home, name: str, say: Callable[[str], None]) -> None:
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.info["name"] == name and process.environ().get("SALAMANDER_DAEMON") == str(home.path):
                os.kill(process.pid, signal.SIGKILL)
                say(f"💥 kill -9 {name} (process {process.pid})")
                return
    raise SalamanderError(f"The demo found no process named {name}.", "See run.py logs.")


def _reset(fleet: Fleet, simulator: SimulatorClient, name: str, say: Callable[[str], None]) -> None:
    simulator.fault("reset", jid=fleet.device(name).jid)
    say(f"💥 reset the socket of {name}")


def _await_outcomes(fleet: Fleet, sent: list[Sent]) -> dict[int, Any]:
    ids = [each.message_id for each in sent]
    settled = FINAL_STATES | {"in_doubt"}
    deadline = time.monotonic() + 120
    while True:
        states = fleet.states(ids)
        waiting = [row for row in states.values() if row["state"] not in settled]
        # A receipt may still settle what is in doubt; the recipients' inboxes decide in the end.
        doubtful = [row for row in states.values() if row["state"] == "in_doubt"]
        if not waiting and (not doubtful or time.monotonic() > deadline - 100):
            return states
        if time.monotonic() > deadline:
            raise NoAnswer(f"{len(waiting)} messages have no outcome after two minutes.", "See run.py logs.")
        time.sleep(0.2)


def _prove(fleet: Fleet, simulator: SimulatorClient, sent: list[Sent], states: dict[int, Any]) -> Report:
    """Count what each recipient decrypted and each platform recorded, and compare it with what was accepted."""
    arrived: Counter[tuple[str, str]] = Counter()
    for recipient in {each.recipient for each in sent}:
        arrived.update((recipient, row["text"]) for row in simulator.inbox(recipient))
    for platform in ("wablas", "whacenter"):
        arrived.update((row["to"], row["text"]) for row in simulator.platform_log(platform))
    report = Report(accepted=len({each.message_id for each in sent}))
    for each in sent:
        count = arrived[each.recipient, each.text]
        in_doubt = states[each.message_id]["state"] == "in_doubt"
        report.delivered += count >= 1
        report.in_doubt += in_doubt
        if count == 0 and not in_doubt:
            report.lost.append(each)
        if count > 1:
            report.duplicated.append(each)
    platform_devices = {device.id for device in fleet.devices() if not device.is_whatsapp}
    for row in fleet.restarts(limit=500):
        report.restarts.append(
            {"what": f"{row['what']} {row['name']}", "cause": row["cause"], "seconds": row["seconds"]}
        )
        report.refreshes_of_platform_devices += row["what"] == "device" and row["device_id"] in platform_devices
    return report


def _show_restart_log(home: Home) -> None:
    """Show the supervisors' own lines about what fell and came back."""
    import json  # noqa: PLC0415

    out.print("\nThe supervisors' log:", style="bold")
    with home.log_file.open(encoding="utf-8") as lines:
        for line in lines:
            if any(mark in line for mark in ("♻️", "⚠️", "🔄")):
                out.print("  " + human_line(json.loads(line)), markup=False, soft_wrap=True)


def _print(report: Report) -> None:
    print_table(
        "\nWhat was restarted",
        ("what", "cause", "seconds"),
        [(row["what"], row["cause"], row["seconds"]) for row in report.restarts],
        "Nothing was restarted.",
    )
    print_table(
        "\nThe proof: what recipients decrypted and platforms recorded, against what was accepted",
        ("accepted", "delivered", "lost", "doubled", "in doubt", "refreshes of platform devices", "seconds"),
        [
            (
                report.accepted,
                report.delivered,
                len(report.lost),
                len(report.duplicated),
                report.in_doubt,
                report.refreshes_of_platform_devices,
                report.seconds,
            )
        ],
        "",
    )
    for each in report.lost:
        err.print(f"LOST: message {each.message_id} from {each.device} to {each.recipient}", style="red")
    for each in report.duplicated:
        err.print(f"DOUBLED: message {each.message_id} from {each.device} to {each.recipient}", style="red")


def _until(look: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := look():
            return value
        time.sleep(0.05)
    raise NoAnswer(f"The demo waited {seconds:.0f} seconds for {what}.", "See run.py logs.")


@contextlib.contextmanager
def _progress(say: Callable[[str], None]) -> Iterator[tuple[Progress, Any]]:
    with Progress(
        TextColumn("Sending"),
        BarColumn(),
        MofNCompleteColumn(),
        console=err,
        transient=True,
        disable=_quiet(say),
    ) as progress:
        yield progress, progress.add_task("Sending", total=_MESSAGES)


@contextlib.contextmanager
def _media_server() -> Iterator[str]:
    """Serve the demo's two files on loopback; return the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = _FILES.get(self.path, ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
