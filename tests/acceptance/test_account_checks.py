"""device test: what the provider says of an account, for people and for scripts, without a message or a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.platforms.http import EXAMPLE
from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.daemon import Daemon, clean_environment, eventually

if TYPE_CHECKING:
    from pathlib import Path

PLATFORMS = ("http", "twilio")


def add(daemon: Daemon, name: str, platform: str, directory: Path, **changed: str) -> None:
    """Add a device as people do: its credentials from the environment, a description from a file."""
    credentials = DEFAULT_ACCOUNTS[platform] | changed
    if "description" in credentials:
        (directory / "gateway.toml").write_text(EXAMPLE, encoding="utf-8")
        credentials["description"] = str(directory / "gateway.toml")
    environment = {f"SALAMANDER_CREDENTIAL_{field.upper()}": value for field, value in credentials.items()}
    url = daemon.simulator.info()["platforms"][platform]
    daemon.ok(
        "device",
        "add",
        name,
        "--platform",
        platform,
        "--base-url",
        url,
        environment=clean_environment(**environment),
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_account_is_connected_disconnected_or_refused(daemon: Daemon, platform: str, tmp_path: Path) -> None:
    add(daemon, platform, platform, tmp_path)
    assert daemon.json("device", "test", platform)["state"] == "connected"
    if platform != "twilio":  # it has no phone that could be unlinked
        daemon.simulator.platform_fault(platform, "disconnected")
        assert daemon.run("device", "test", platform).returncode == 10
        daemon.simulator.platform_fault(platform, "clear")
    secret = {"http": "token", "twilio": "auth_token"}[platform]
    add(daemon, f"{platform}-wrong", platform, tmp_path, **{secret: "another-invented-value"})
    wrong = daemon.run("device", "test", f"{platform}-wrong")
    assert wrong.returncode == 11, wrong.stdout + wrong.stderr
    assert wrong.stdout.startswith(f"{platform}-wrong: refused")
    assert daemon.simulator.platform_log(platform) == []
    told = daemon.home.log_file.read_text(encoding="utf-8") + wrong.stdout + wrong.stderr
    assert "another-invented-value" not in told
    assert DEFAULT_ACCOUNTS[platform][secret] not in told


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_message_goes_out_through_a_device_that_passed(daemon: Daemon, platform: str) -> None:
    daemon.ok("send", platform, "+6281234567890", "Selamat pagi")
    log = eventually(lambda: daemon.simulator.platform_log(platform), 20, "the message")
    assert [(each["to"], each["text"]) for each in log] == [("6281234567890", "Selamat pagi")]


def test_devices_without_an_account_are_refused(daemon: Daemon) -> None:
    daemon.ok("device", "add", "companion")
    assert daemon.refused("device", "test", "companion").code == "not_a_platform_device"
    assert daemon.refused("device", "test", "nobody").code == "unknown_device"


def test_without_a_daemon_there_is_nobody_to_ask(tmp_path: Path) -> None:
    elsewhere = Daemon(tmp_path / "elsewhere")
    assert elsewhere.run("device", "test", "any").returncode == 3
