"""Without a daemon, or with settings or a home it cannot use: one clear line, and nothing is created."""

from __future__ import annotations

import json
import os
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import clean_environment, error_line_of, run_command

if TYPE_CHECKING:
    from pathlib import Path

RECIPIENT = "+60199000001"


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("heartbeat_seconds = -1", "heartbeat_seconds"),
        ("max_shards = 0", "max_shards"),
        ('log_level = "loud"', "log_level"),
        ('database_url = "postgresql://127.0.0.1:1/x"', "database_url"),
        ("colour = 3", "colour"),
        ("max_shards = ", "config.toml"),
        ('bind_address = "not an address"', "bind_address"),
        ('bind_address = "0.0.0.0"', "bind_address"),
    ],
)
def test_an_unusable_setting_is_named_and_nothing_starts(tmp_path: Path, toml: str, named: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(toml + "\n", encoding="utf-8")
    line = error_line_of(run_command(home, "start"))
    assert named in line
    assert sorted(path.name for path in home.iterdir()) == ["config.toml"]


def test_an_address_that_this_machine_does_not_have_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # A documentation address (RFC 5737): nobody's.
    (home / "config.toml").write_text('bind_address = "203.0.113.1"\n', encoding="utf-8")
    line = error_line_of(run_command(home, "start"))
    assert "bind_address" in line
    assert "203.0.113.1" in line


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home / "config.toml").write_text(f"admin_port = {port}\n", encoding="utf-8")
        assert str(port) in error_line_of(run_command(home, "start"))


def test_an_unknown_or_unusable_environment_variable_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name, value in (("SALAMANDER_COLOUR", "red"), ("SALAMANDER_MAX_SHARDS", "many")):
        line = error_line_of(run_command(home, "start", environment=clean_environment(**{name: value})))
        assert name in line or name.removeprefix("SALAMANDER_").lower() in line
    assert not home.exists()


def test_a_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("I am a file.", encoding="utf-8")
    for command in ("start", "status", "logs"):
        error_line_of(run_command(home, command))
    assert home.read_text(encoding="utf-8") == "I am a file."


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to become another user")
def test_a_home_without_write_permission_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    line = error_line_of(
        run_command(home, "start", prefix=as_nobody, environment=clean_environment(HOME=str(tmp_path)))
    )
    assert str(home) in line
    assert "Permission denied" in line
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("stop",),
        ("status",),
        ("send", "shop", RECIPIENT, "hello"),
        ("device", "add", "shop"),
        ("messages",),
        ("resolve", "1", "--sent"),
        ("restarts",),
        ("events",),
        ("simulator", "info"),
        ("simulator", "fault", "reset", "--device", "shop"),
    ],
    ids=" ".join,
)
def test_without_a_daemon_commands_say_how_to_start_one_and_create_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    finished = run_command(home, *arguments)
    assert finished.returncode == 3
    assert "run.py start" in error_line_of(finished)
    assert not home.exists()


def test_status_as_json_says_that_nothing_runs(tmp_path: Path) -> None:
    finished = run_command(tmp_path / "home", "status", "--json")
    assert finished.returncode == 3
    assert json.loads(finished.stdout)["running"] is False


def test_usage_errors_have_a_status_of_their_own(tmp_path: Path) -> None:
    for arguments in (("sned",), ("send", "--no-such-option"), ("message", "first"), ("device",)):
        finished = run_command(tmp_path / "home", *arguments)
        assert finished.returncode == 2, arguments
        assert "Traceback" not in finished.stderr
