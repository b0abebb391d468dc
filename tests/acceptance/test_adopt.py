"""Numbers that were paired with another tool come along: nobody scans again, and only one program uses a session."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adoption.sqlite_source import SqliteSource
from adoption.store import Store
from config.settings import load_settings
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage.database import whatsmeow_url
from storage.embedded import embedded_url
from tests.integration.whatsapp_client_process import ClientProcess
from tests.support.daemon import Daemon, clean_environment, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fleet import Fleet

SETTINGS = {"max_shards": 1}
RECIPIENT = "60199000001"


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


@contextlib.contextmanager
def other_tool(daemon: Daemon, store: Path | str, phone: str) -> Iterator[tuple[ClientProcess, str]]:
    """Another whatsmeow program, connected with the session that a simulated phone linked; gives its JID, too."""
    tool = ClientProcess(daemon.simulator.info(), store)
    try:
        daemon.simulator.add_phone(phone)
        since = tool.mark
        jid = daemon.simulator.scan(phone, tool.pair())
        # It is connected once for the pairing, and once more as the new companion.
        tool.wait("paired", 30)
        tool.wait("connected", 30, since)
        yield tool, jid
    finally:
        tool.close()


@pytest.fixture(scope="module")
def paired_file(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A SQLite store with two paired companions, left behind by a stopped tool; and their JIDs."""
    path = tmp_path_factory.mktemp("other") / "whatsapp.db"
    jids = []
    for phone in ("60121000001", "60121000002"):
        with other_tool(daemon, path, phone) as (tool, jid):
            sends(tool, f"from the other tool {phone}")
            jids.append(jid)
            seen = daemon.run("adopt", "--from", str(path), "--yes", "--json")
            assert "source_in_use" in seen.stderr, seen
            assert f"(process {tool._process.pid}) has it open" in seen.stderr
    return path, jids


def sends(tool: ClientProcess, text: str) -> None:
    """Let the other tool send; right after a pairing its first try may find it between two connections."""

    def sent() -> bool:
        with contextlib.suppress(AssertionError):
            tool.send(RECIPIENT, text)
            return True
        return False

    eventually(sent, 60, "the other tool to send")


def copy_of(path: Path, target: Path) -> Path:
    """Return a copy of a store that was written long ago."""
    shutil.copyfile(path, target)
    rest(target)
    return target


def rest(path: Path) -> None:
    """Let a file have been written long ago, so that nobody needs to wait."""
    for each in path.parent.glob(f"{path.name}*"):
        os.utime(each, (time.time() - 60, time.time() - 60))


def by_name(report: Any) -> dict[str, Any]:
    return {each["name"]: each for each in report["devices"]}


def test_a_file_of_another_tool_is_adopted_and_its_numbers_send_without_a_scan(
    daemon: Daemon, fleet: Fleet, paired_file: tuple[Path, list[str]]
) -> None:
    path, (first, second) = paired_file
    rest(path)
    before = path.read_bytes()

    told = daemon.json("adopt", "--from", str(path), "--dry-run")
    assert (told["planned"], told["adopted"], told["signs_of_life"]) == (2, 0, [])
    assert not [device for device in fleet.devices() if device.jid in {first, second}]

    done = daemon.json("adopt", "--from", f"file:{path}?_foreign_keys=on", "--name", f"{first}=shop-1", "--yes")
    assert {name: each["outcome"] for name, each in by_name(done).items()} == {
        "shop-1": "adopted",
        "60121000002": "adopted",
    }
    assert (path.read_bytes(), [each.name for each in path.parent.iterdir()]) == (before, [path.name])
    for name, jid in (("shop-1", first), ("60121000002", second)):
        device = daemon.await_state(fleet, name, "online", 60)
        assert device.jid == jid
        assert device.linked_at is not None
        text = f"from {name}, adopted"
        daemon.await_message(fleet, fleet.send(name, RECIPIENT, text), "delivered read", 60)
        assert daemon.texts(RECIPIENT).count(text) == 1
    assert daemon.texts(RECIPIENT).count("from the other tool 60121000001") == 1

    again = daemon.json("adopt", "--from", str(path), "--name", f"{first}=shop-1", "--yes")
    assert (again["adopted"], again["skipped"]) == (0, 2)
    assert not list(daemon.home.run.glob("adopt/*"))


def test_a_session_that_cannot_be_used_costs_itself_alone_and_a_repetition_goes_on(
    daemon: Daemon, fleet: Fleet, paired_file: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """The rows of two numbers under other names: one is damaged, one was half adopted by a command that was killed."""
    path = copy_of(paired_file[0], tmp_path / "store.db")
    with sqlite3.connect(path) as database:
        database.execute("pragma foreign_keys = on")
        database.execute("pragma ignore_check_constraints = on")
        database.execute(
            "update whatsmeow_device set jid = '60121000008:1@s.whatsapp.net' where jid like '60121000001%'"
        )
        database.execute(
            "update whatsmeow_device set jid = '60121000009:1@s.whatsapp.net' where jid like '60121000002%'"
        )
        database.execute("update whatsmeow_device set noise_key = x'00' where jid like '60121000008%'")
    database.close()
    rest(path)
    workplace = tmp_path / "work"
    workplace.mkdir()
    source, store = SqliteSource(path, workplace), Store(whatsmeow_url(daemon.home, load_settings(daemon.home)))
    assert store.copy_companion(source, "60121000009:1@s.whatsapp.net") > 0
    source.close()
    store.close()

    refused = daemon.run("adopt", "--from", str(path), "--yes", "--json")

    assert refused.returncode == 6
    assert "1 of 2 were not adopted" in refused.stderr
    assert "x'00'" not in refused.stdout + refused.stderr
    assert {device.name for device in fleet.devices()} >= {"60121000009"}
    assert not {device.name for device in fleet.devices()} & {"60121000008"}
    fleet.tell_device("60121000009", "remove")


def test_a_postgresql_database_is_adopted_by_an_address_that_no_process_list_shows(
    daemon: Daemon, fleet: Fleet, tmp_path: Path
) -> None:
    url = embedded_url(daemon.home.postgres, "gowa")
    with psycopg.connect(embedded_url(daemon.home.postgres, "postgres"), autocommit=True) as admin:
        admin.execute("create database gowa")
    environment = clean_environment(OTHER_TOOL=url + "&binary_parameters=yes")
    with other_tool(daemon, url + "&sslmode=disable", "60121000003") as (tool, jid):
        sends(tool, "from the other tool's database")
        in_use = daemon.run("adopt", "--from-env", "OTHER_TOOL", "--yes", "--json", environment=environment)
        assert "source_in_use" in in_use.stderr
        assert "is connected as postgres" in in_use.stderr
        shown = daemon.json("adopt", "--from-env", "OTHER_TOOL", "--dry-run", environment=environment)
        assert (shown["planned"], bool(shown["signs_of_life"])) == (1, True)
        others = ("adopt", "--from-env", "OTHER_TOOL", "--others-connected", "--dry-run")
        assert daemon.json(*others, environment=environment)["signs_of_life"] == []

    refusal = daemon.refused("adopt", "--from", url, "--yes")
    assert (refusal.code, refusal.status) == ("bad_source", 6)
    (tmp_path / "url").write_text(url)
    eventually(lambda: nobody_is_connected(url), 30, "the other tool's connections to end")
    assert daemon.refused("adopt", "--from", "-", text_in=url).code == "not_confirmed"
    done = daemon.json("adopt", "--from-file", str(tmp_path / "url"), "--name", "+60121000003=from-gowa", "--yes")

    assert [each["outcome"] for each in done["devices"]] == ["adopted"]
    assert daemon.await_state(fleet, "from-gowa", "online", 60).jid == jid
    daemon.await_message(fleet, fleet.send("from-gowa", RECIPIENT, "adopted from PostgreSQL"), "delivered read", 60)
    assert daemon.texts(RECIPIENT).count("adopted from PostgreSQL") == 1


def nobody_is_connected(url: str) -> bool:
    with psycopg.connect(url) as watch:
        row = watch.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchone()
    return row == (0,)


def test_the_accounts_and_names_of_the_original_system_are_imported_and_tokens_are_sealed(
    daemon: Daemon, fleet: Fleet, tmp_path: Path
) -> None:
    path = tmp_path / "original.db"
    wablas, whacenter = DEFAULT_ACCOUNTS["wablas"], DEFAULT_ACCOUNTS["whacenter"]
    token = f"{wablas['token']}.{wablas['secret_key']}"
    with sqlite3.connect(path) as database:
        database.execute(
            "create table user_devices (id integer primary key, user_id integer, device_name text, phone text,"
            " jid text, status text, last_seen text, platform text, min_delay_seconds integer,"
            " max_delay_seconds integer)"
        )
        database.executemany(
            "insert into user_devices (user_id, device_name, phone, jid, platform, min_delay_seconds,"
            " max_delay_seconds) values (1, ?, ?, ?, ?, ?, ?)",
            [
                ("Désk 1", "", token, "Wablas", 0, 2),
                ("desk-2", "", whacenter["device_id"], "whacenter", None, None),
                ("gone", "60121000077", "60121000077:3@s.whatsapp.net", None, 5, 10),
                ("unknown", "", "token-of-somebody", "nosuchplatform", 5, 10),
            ],
        )
    database.close()
    rest(path)
    addresses = [f"--base-url={name}={daemon.simulator.info()['platforms'][name]}" for name in ("wablas", "whacenter")]

    done = daemon.run("adopt", "--from", str(path), *addresses, "--yes", "--json")

    assert done.returncode == 6, done
    assert all(secret not in done.stdout + done.stderr for secret in (token, wablas["token"], "token-of-somebody"))
    first = fleet.device("Desk-1")
    assert (first.platform, first.limits.gap_seconds, first.limits.jitter_seconds) == ("wablas", 0, 2)
    assert first.credentials is not None
    assert wablas["token"].encode() not in first.credentials
    for name in ("Desk-1", "desk-2"):
        daemon.await_message(fleet, fleet.send(name, RECIPIENT, f"by {name}"), "sent delivered read", 60)
    again = daemon.run("adopt", "--from", str(path), *addresses, "--yes", "--json").stdout
    assert '"skipped": 3' in again
    assert '"failed": 1' in again
