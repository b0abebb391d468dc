"""start, stop, status: the life of the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.fleet import Fleet
from actors.platforms.callbacks import told_no_address
from commands.care import care_lines, care_report
from commands.coming_up import coming_up, show_coming_up
from commands.output import AsJson, as_typed, current_home, out, print_json, print_table, reported
from commands.shards import recycling_line
from config.daemon import DaemonFile, read_daemon_file
from config.durations import ago
from config.errors import DaemonAlreadyRunning, DaemonNotRunning, SalamanderError, StorageUnavailable
from config.gateway import gateway_url
from config.home import Home
from config.settings import Settings, load_settings
from storage.devices import Device
from supervisors.daemon_lock import is_locked
from supervisors.environment import ensure_environment
from supervisors.policy import advice_for, needs_attention
from supervisors.processes import process_is_alive, process_started, sweep
from supervisors.shards_file import read_shards_file
from supervisors.watchdog import Watchdog

#: How long a start may take until the fleet is up, and a stop until everything is gone, in seconds.
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


@reported
def start(
    foreground: Annotated[bool, typer.Option(help="Stay in the foreground (systemd, containers).")] = False,
    simulator: Annotated[
        bool,
        typer.Option(help="Run against a loopback WhatsApp and platforms. No message leaves this machine."),
    ] = False,
) -> None:
    """Start the daemon: PostgreSQL, the actor system, the fleet."""
    home = current_home()
    settings = load_settings(home)
    home.create()
    if is_locked(home):
        daemon = read_daemon_file(home)
        raise DaemonAlreadyRunning(home.path, daemon.pid if daemon else None)
    if foreground:
        ensure_environment(home, simulator=simulator)
        Watchdog(home, settings, simulator=simulator).run(echo=True)
        return
    daemon = start_in_background(home, simulator=simulator)
    next_step = as_typed("Next: run.py device add NAME, or in a browser: run.py dashboard")
    out.print(f"The fleet is up on {home.path} (process {daemon.pid}). {next_step}")


def start_in_background(home: Home, *, simulator: bool) -> DaemonFile:
    """Start a daemon and return when its fleet is up.

    Raises:
        SalamanderError: it did not start; the sentence is the daemon's own.
    """
    output_path = home.logs / "daemon.log"
    with output_path.open("ab") as output:
        output_path.chmod(0o600)
        said_before = output.tell()
        arguments = [
            sys.executable,
            str(Path(__file__).parent.parent / "run.py"),
            "--home",
            str(home.path),
            "start",
        ]
        arguments += ["--foreground", *(["--simulator"] if simulator else [])]
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        daemon = read_daemon_file(home)
        if daemon is not None and daemon.pid == process.pid and daemon.ready:
            return daemon
        if process.poll() is not None:
            if daemon is not None and daemon.pid != process.pid and is_locked(home):
                raise DaemonAlreadyRunning(home.path, daemon.pid)  # another start was a moment faster
            words = _last_words(output_path, said_before)
            raise SalamanderError(words, f"See {output_path} and run.py logs.", code="start_failed")
        time.sleep(0.05)
    raise SalamanderError(
        f"The fleet was not up after {_START_SECONDS:.0f} seconds; the daemon goes on starting.",
        "See run.py status and run.py logs.",
        code="start_slow",
    )


def _last_words(path: Path, start: int) -> str:
    """Return the error line a daemon left on its standard error after byte ``start``, or its last line."""
    said = path.read_bytes()[start:].decode("utf-8", "replace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    if errors:
        return errors[-1].removeprefix("Error: ")
    return f"The daemon ended: {lines[-1]}" if lines else "The daemon ended without a word."


@reported
def stop() -> None:
    """Stop the daemon: sends under way finish, then every process ends."""
    home = current_home()
    if stop_daemon(home):
        out.print(f"Stopped the daemon on {home.path}.")
    else:
        raise DaemonNotRunning(home.path)


def stop_daemon(home: Home) -> bool:
    """Stop the daemon of ``home`` and return whether there was one (or what a killed one left).

    Raises:
        SalamanderError: it is still there after a minute.
    """
    daemon = read_daemon_file(home)
    if daemon is None or not process_is_alive(daemon.pid, daemon.process_started):
        left = sweep(home, spare=(os.getpid(),))
        home.daemon_file.unlink(missing_ok=True)
        return bool(left) or daemon is not None
    os.kill(daemon.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while process_is_alive(daemon.pid, daemon.process_started):
        if time.monotonic() > deadline:
            raise SalamanderError(
                f"The daemon (process {daemon.pid}) is still stopping.",
                "Wait, or see run.py logs.",
                code="stop_slow",
            )
        time.sleep(0.05)
    return True


@reported
def status(as_json: AsJson = False) -> None:
    """Show whether the daemon runs, its devices by state, and its messages."""
    home = current_home()
    settings = load_settings(home)
    daemon = read_daemon_file(home)
    running = daemon is not None and process_is_alive(daemon.pid, daemon.process_started)
    if not running or daemon is None:
        if as_json:
            print_json({"running": False, "ready": False, "home": str(home.path)})
            raise typer.Exit(DaemonNotRunning.exit_code)
        raise DaemonNotRunning(home.path)
    try:
        with Fleet(home.path, timeout=5) as fleet:
            if not as_json:
                show_coming_up(home, fleet)
            progress = coming_up(home, fleet)
            devices = fleet.devices()
            messages = fleet.message_counts()
            backlog = fleet.backlog()
            restarts = fleet.restarts(limit=5)
            breakers = fleet.breakers()
            care = care_report(settings, fleet.care_overview())
    except StorageUnavailable:
        if not as_json:
            out.print(f"Running on {home.path}, process {daemon.pid}; its database is away, so no more can be told.")
        raise
    report: dict[str, Any] = {
        "running": True,
        "ready": daemon.ready,
        "home": str(home.path),
        "pid": daemon.pid,
        "simulator": daemon.simulator,
        "gateway": {"url": gateway_url(home, settings)},
        "devices": [
            {
                "name": device.name,
                "platform": device.platform or "whatsapp",
                "state": device.state,
                "reason": device.reason,
                "waiting": backlog.get(device.id, {}).get("waiting", 0),
                "held_until": device.held_until if device.is_held else None,
                "held_reason": device.held_reason if device.is_held else "",
            }
            for device in devices
        ],
        "attention": [
            {"name": device.name, "state": device.state, "reason": device.reason, "advice": advice_for(device)}
            for device in devices
            if needs_attention(device)
        ],
        "breakers": breakers,
        "notices": _notices(settings, devices, loopback=daemon.simulator),
        "messages": messages,
        "care": care,
        "coming_up": {"tried": progress.tried, "total": progress.total},
        "recycling": read_shards_file(home)["recycling"],
        "processes": _processes(daemon),
    }
    if as_json:
        print_json(report)
        return
    kind = " with the loopback simulator: no message leaves this machine" if daemon.simulator else ""
    out.print(f"Running{'' if daemon.ready else ' (starting)'} on {home.path}, process {daemon.pid}{kind}.")
    if report["gateway"]["url"] is not None:
        out.print(f"The gateway: {report['gateway']['url']}", markup=False)
    for notice in report["notices"]:
        out.print(notice, markup=False)
    by_state: dict[tuple[str, str], int] = {}
    for device in devices:
        key = (device.platform or "whatsapp", device.state)
        by_state[key] = by_state.get(key, 0) + 1
    rows = [(platform, state, count) for (platform, state), count in sorted(by_state.items())]
    print_table("Devices", ("platform", "state", "devices"), rows, "No devices yet: run.py device add NAME")
    if report["attention"]:
        print_table(
            "Needs attention",
            ("device", "state", "why", "you can"),
            [(each["name"], each["state"], each["reason"], as_typed(each["advice"])) for each in report["attention"]],
            "",
        )
    held = [(device.name, ago(device.held_until), device.held_reason) for device in devices if device.is_held]
    if held:
        print_table("Lanes that wait", ("device", "until", "why"), held, "")
    if breakers:
        print_table(
            "Breakers",
            ("platform", "account", "state", "since", "why"),
            [
                (each["platform"], each["account"] or "all", each["state"], each["since"], each["reason"])
                for each in breakers
            ],
            "",
        )
    if report["recycling"]:
        out.print(recycling_line(report["recycling"]), markup=False)
    print_table("Messages", ("state", "messages"), sorted(messages.items()), "No messages yet: run.py send")
    print_table("Care for the numbers", ("what", "how"), care_lines(care), "")
    print_table(
        "Latest restarts",
        ("at", "what", "name", "cause", "seconds"),
        [(row["at"], row["what"], row["name"], row["cause"], row["seconds"]) for row in restarts],
        "Nothing was restarted.",
    )


def _notices(settings: Settings, devices: list[Device], *, loopback: bool) -> list[str]:
    """Return what of the settings does not do what its operator may expect."""
    platforms = sorted({device.platform for device in devices if device.platform is not None})
    return [notice for each in platforms if (notice := told_no_address(settings, each, loopback=loopback))]


def _processes(daemon: DaemonFile) -> list[dict[str, Any]]:
    """Return the daemon's processes by name."""
    import psutil  # noqa: PLC0415 - only status needs it

    watchdog = psutil.Process(daemon.pid)
    found = []
    for process in [watchdog, *watchdog.children(recursive=True)]:
        try:
            found.append({"pid": process.pid, "name": process.name(), "started": process_started(process.pid)})
        except psutil.Error:
            continue
    return found
