"""The wheel is whole: installed elsewhere, without the repository, its command runs a fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from config.version import VERSION
from tests.support.daemon import PROJECT, Daemon, clean_environment
from tests.support.repository import copy_of_the_repository, repository_files

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The one name that the build of this pyproject.toml needs.
_SETUPTOOLS = 77


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that the build leaves nothing here."""
    directory = tmp_path_factory.mktemp("build")
    copy_of_the_repository(directory / "source")
    # With its own isolation, the build fetches setuptools; where the environment has it, it needs no network.
    enough = int(version("setuptools").split(".")[0]) >= _SETUPTOOLS
    run(
        [sys.executable, "-m", "build", "--wheel", *(["--no-isolation"] if enough else []), "--outdir", str(directory)],
        cwd=directory / "source",
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def salamander(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in an environment of its own that borrows the dependencies of this one."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)])
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "salamander"


def run(command: list[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=dict(environment) if environment else clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, f"{command}: {finished.stdout[-3000:]}{finished.stderr[-3000:]}"
    return finished.stdout


def test_the_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]

    assert [name for name in repository_files(*packages) if name not in names] == []
    assert "run.py" in names
    assert {"tests", "benchmarks"} & {name.split("/")[0] for name in names} == set()
    shared = {name.split("/data/share/")[1] for name in names if "/data/share/" in name}
    assert {"doc/salamander/README.md", "doc/salamander/adopting.md", "salamander/salamander.service"} <= shared


def test_the_installed_command_runs_a_fleet_from_anywhere(
    salamander: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Daemon(tmp_path_factory.mktemp("home") / "home")
    environment = clean_environment(SALAMANDER_HOME=str(home.home.path))

    def command(*arguments: str) -> str:
        return run([str(salamander), *arguments], tmp_path, environment)

    assert command("--version") == f"salamander {VERSION}\n"
    assert "adopt" in command("--help")
    try:
        assert "Next: salamander device add NAME" in command("start", "--simulator")
        assert home.is_ready()
        modules = os.fspath(salamander.parent.parent)
        assert modules in " ".join(home.process("watchdog").cmdline())
        assert "Next: salamander device pair shop-1" in command("device", "add", "shop-1")
        command("simulator", "phone", "add", "60123456789")
        command("device", "pair", "shop-1", "--no-wait")
        command("simulator", "scan", "60123456789")
        command("send", "shop-1", "+60198887777", "From the wheel.", "--wait")
        inbox = json.loads(command("simulator", "inbox", "60198887777", "--json"))
        assert [row["text"] for row in inbox] == ["From the wheel."]
        home.listening()
        assert "Stopped" in command("stop")
        home.assert_nothing_is_left()
    finally:
        home.kill_everything()
