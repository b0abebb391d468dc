"""Every command of README.md and docs/ is run, in order, against one daemon with the simulator.

A block marked not-run="…" is not, and says why; its commands and options are checked by tests/unit/test_readme.py. The
daemon is the tests' own: `start` and `stop` on its home leave it alone; `start --simulator` begins with an empty fleet.
A block marked `phone` needs somebody who scans a QR: a simulated phone does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from actors.whatsapp.session import migrate_store
from config.errors import SalamanderError
from storage.embedded import embedded_url
from tests.support.daemon import PROJECT, Daemon, clean_environment
from tests.support.files import DOCUMENT
from tests.support.pages import blocks_of, pages, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"max_shards": 1}
#: Pages that go on from the tutorial come after it; each other one begins by itself.
_ORDER = ["README.md", "docs/adopting.md", "docs/tutorial.md", "docs/commands.md", "docs/api.md", "docs/security.md"]
_ORDER += ["docs/operating.md"]
_PAGE_SECONDS = 400

_RUN_PY = """#!/usr/bin/env bash
case "$1 ${{2:-}}" in
    "start --simulator") exec {python} {empty} ;;
    "start " | "stop ") exit 0 ;;
esac
exec {python} {project}/run.py "$@"
"""
_EMPTY = """
import time
from actors.fleet import Fleet

with Fleet() as fleet:
    for device in fleet.devices():
        fleet.tell_device(device.name, "remove")
    while fleet.devices():
        time.sleep(0.05)
"""


def ordered() -> list[str]:
    return [*_ORDER, *(page for page in pages() if page not in _ORDER)]


def script_of(page: str) -> str:
    """Return a page as one shell script, so that what a block sets the next one has."""
    lines = ["set -euo pipefail"]
    for block in blocks_of(text_of(page)):
        if block.not_run or block.language not in {"console", "sh", "python"}:
            continue
        if block.language == "python":
            lines += [f"echo {shlex.quote(f'{page}:{block.line}: python')} >&2", "python3 - <<'THE-END'"]
            lines += [block.text + "THE-END"]
            continue
        lines += ['touch "$WORK/phone"'] * block.phone
        for command in block.commands:
            lines += [f"echo {shlex.quote(f'{page}:{block.line}: $ {command}')} >&2", command]
        lines += ['rm "$WORK/phone"'] * block.phone
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def environment(daemon: Daemon, work: Path) -> Iterator[dict[str, str]]:
    """What a reader's shell has: the alias run.py, the repository's environment, another tool's databases."""
    programs = work / "bin"
    programs.mkdir()
    (work / ".venv").symlink_to(PROJECT / ".venv")
    (work / ".salamander-real").symlink_to(daemon.home.path)
    (work / "empty.py").write_text(_EMPTY)
    names = {"python": sys.executable, "empty": work / "empty.py", "project": PROJECT}
    for name, text in (("run.py", _RUN_PY.format(**names)), ("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (work / "menu.pdf").write_bytes(DOCUMENT)
    url = other_tools(daemon, work)
    yield clean_environment(
        PATH=f"{programs}:{os.environ['PATH']}",
        PYTHONPATH=str(PROJECT),
        HOME=str(work),
        WORK=str(work),
        SALAMANDER_HOME=str(daemon.home.path),
        OTHER_TOOL_DB=url,
    )
    # The one of operating.md, should its page have failed between its start and its stop.
    Daemon(work / "restored").kill_everything()


def other_tools(daemon: Daemon, work: Path) -> str:
    """Make what adopting.md adopts: a file with a session, long at rest, and an empty database; return its URL."""
    store = work / "whatsapp.db"
    subprocess.run(
        [sys.executable, "-m", "actors.whatsapp.migration"], input=str(store), text=True, cwd=PROJECT, check=True
    )
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute(
            "insert into whatsmeow_device (jid, registration_id, noise_key, identity_key, signed_pre_key,"
            " signed_pre_key_id, signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key,"
            " adv_device_sig) values ('60123456789:1@s.whatsapp.net', 1, zeroblob(32), zeroblob(32), zeroblob(32), 1,"
            " zeroblob(64), zeroblob(32), x'', zeroblob(64), zeroblob(32), zeroblob(64))"
        )
    os.utime(store, (time.time() - 60, time.time() - 60))
    with psycopg.connect(embedded_url(daemon.home.postgres, "postgres"), autocommit=True) as admin:
        admin.execute("create database other_tool")
    url = embedded_url(daemon.home.postgres, "other_tool")
    migrate_store(url)
    (work / "other-tool.url").write_text(url + "\n")
    return url


@pytest.fixture(scope="module", autouse=True)
def somebody_with_a_phone(daemon: Daemon, work: Path) -> Iterator[None]:
    """Scan each QR that is shown, as long as a block says that it needs a phone."""
    over = threading.Event()

    def scan() -> None:
        scanned: set[str] = set()
        while not over.wait(0.3):
            if not (work / "phone").exists():
                continue
            with contextlib.suppress(SalamanderError), daemon.fleet() as fleet:
                for device in fleet.devices():
                    if device.pairing_qr is not None and device.name not in scanned:
                        phone = f"6012900{len(scanned):04d}"
                        daemon.simulator.add_phone(phone)
                        daemon.simulator.scan(phone, device.pairing_qr)
                        scanned.add(device.name)

    thread = threading.Thread(target=scan)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("page", ordered())
def test_every_command_of_a_page_works(page: str, environment: dict[str, str], work: Path) -> None:
    script = script_of(page)
    if page == "docs/adopting.md":
        script = "run.py start --simulator\n" + script
    finished = subprocess.run(
        ["bash"],
        input=script,
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PAGE_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stderr[-3000:]}\n{finished.stdout[-3000:]}"
