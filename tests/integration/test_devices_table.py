"""The device table on a real server: names, companions, states, and secrets that stay sealed."""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.errors import ConfigurationInvalid, NotFound, Refused
from storage import devices, leases
from storage.credentials import CredentialSeal
from storage.database import Connection, Database
from storage.devices import Device, DeviceLane
from tests.support.outbox import accept_texts, new_device

_users = itertools.count(60_100_000_001)


def companion() -> str:
    """Return a JID that no other test uses."""
    return f"{next(_users)}:7@s.whatsapp.net"


def row_of(connection: Connection, device_id: int) -> Device:
    found = devices.by_id(connection, device_id)
    assert found is not None
    return found


@pytest.fixture
def device_id(connection: Connection) -> int:
    return new_device(connection)


def test_a_new_device_waits_for_a_phone_and_a_platform_account_is_ready(connection: Connection) -> None:
    ours, theirs = row_of(connection, new_device(connection)), row_of(connection, new_device(connection, "wablas"))
    assert (ours.state, ours.is_whatsapp, ours.desired_state, ours.jid) == ("needs_pairing", True, "running", None)
    assert (theirs.state, theirs.is_whatsapp) == ("ready", False)
    assert ours.reason
    assert theirs.reason


def test_a_device_is_found_by_name_and_by_id(connection: Connection, device_id: int) -> None:
    device = row_of(connection, device_id)
    assert devices.by_name(connection, device.name) == device
    lane = DeviceLane(device.id, device.platform)
    assert devices.lanes_by_name(connection, [device.name, device.name, "nobody"]) == {device.name: lane}
    assert device in devices.all_devices(connection)
    assert devices.by_id(connection, 0) is None
    with pytest.raises(NotFound, match="no device named 'nobody'"):
        devices.by_name(connection, "nobody")


@pytest.mark.parametrize("name", ["a\x00b", "caf\udce9", "x" * 10_000, ""])
def test_a_name_that_cannot_be_one_is_nobodys(connection: Connection, device_id: int, name: str) -> None:
    known = row_of(connection, device_id).name
    assert list(devices.lanes_by_name(connection, [name, known])) == [known]
    with pytest.raises(NotFound):
        devices.by_name(connection, name)


def test_a_name_is_taken_until_its_device_is_removed(connection: Connection, device_id: int) -> None:
    name = row_of(connection, device_id).name
    with pytest.raises(Refused, match="exists already") as refused:
        devices.add(connection, name=name, platform=None)
    assert refused.value.code == "name_taken"
    devices.remove(connection, device_id)
    again = devices.add(connection, name=name, platform=None)
    assert devices.by_name(connection, name).id == again != device_id


def test_a_companion_belongs_to_one_device(database: Database, connection: Connection, device_id: int) -> None:
    jid, neighbour = companion(), new_device(connection)
    devices.bind(connection, device_id, jid, "123@lid")

    def bind_twice() -> None:
        with database.transaction() as own:
            devices.bind(own, neighbour, jid, "123@lid")

    with pytest.raises(Refused, match="already bound"):
        bind_twice()
    assert row_of(connection, neighbour).jid is None
    assert (row_of(connection, device_id).jid, row_of(connection, device_id).lid) == (jid, "123@lid")
    devices.remove(connection, device_id)
    bind_twice()
    assert row_of(connection, neighbour).jid == jid


def test_a_device_has_one_companion_and_forgets_only_that_one(connection: Connection, device_id: int) -> None:
    first, second = companion(), companion()
    devices.bind(connection, device_id, first, "")
    devices.bind(connection, device_id, second, "")
    devices.unbind(connection, device_id, first)
    assert row_of(connection, device_id).jid == second
    devices.unbind(connection, device_id, second)
    assert row_of(connection, device_id).jid is None


def test_the_state_says_since_when_why_and_what_comes_next(connection: Connection, device_id: int) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    devices.set_state(connection, device_id, "refreshing", "connect_refused", "No way.", soon)
    first = row_of(connection, device_id)
    assert (first.state, first.reason_code, first.reason) == ("refreshing", "connect_refused", "No way.")
    assert first.next_attempt_at == soon
    devices.set_state(connection, device_id, "refreshing", "connect_timeout", "Too slow.")
    second = row_of(connection, device_id)
    assert (second.state_since, second.reason, second.next_attempt_at) == (first.state_since, "Too slow.", None)
    devices.set_state(connection, device_id, "online", "connected", "Connected.")
    third = row_of(connection, device_id)
    assert third.state_since > first.state_since
    assert third.last_online_at is not None


def test_what_a_pairing_shows_is_gone_with_it(connection: Connection, device_id: int) -> None:
    devices.set_state(connection, device_id, "pairing", "pairing", "Waiting.")
    devices.set_pairing(connection, device_id, qr=None, code="ABCD-EFGH")
    devices.set_pairing(connection, device_id, qr="2@qr", code=None)
    shown = row_of(connection, device_id)
    assert (shown.pairing_qr, shown.pairing_code) == ("2@qr", "ABCD-EFGH")
    devices.set_state(connection, device_id, "online", "connected", "Connected.")
    shown = row_of(connection, device_id)
    assert (shown.pairing_qr, shown.pairing_code) == (None, None)


def test_pausing_changes_what_is_wanted_and_for_an_account_its_state(connection: Connection) -> None:
    for platform, paused, running in ((None, "needs_pairing", "needs_pairing"), ("wablas", "paused", "ready")):
        device = row_of(connection, new_device(connection, platform))
        devices.set_desired_state(connection, device, "paused")
        now = row_of(connection, device.id)
        assert (now.desired_state, now.state) == ("paused", paused)
        devices.set_desired_state(connection, device, "running")
        now = row_of(connection, device.id)
        assert (now.desired_state, now.state) == ("running", running)


def test_a_removed_device_leaves_no_secret(connection: Connection) -> None:
    device_id = devices.add(connection, name="leaving", platform="wablas", credentials=b"sealed", proxy=b"sealed")
    devices.remove(connection, device_id)
    assert devices.by_id(connection, device_id) is None
    row = connection.execute("select * from device where id = %s", [device_id]).fetchone()
    assert row is not None
    assert (row["credentials"], row["proxy"], row["jid"], row["state"]) == (None, None, None, "removed")


def test_a_fleet_has_come_up_when_each_device_had_its_first_try(connection: Connection, device_id: int) -> None:
    def progress() -> tuple[int, int]:
        now = devices.coming_up(connection, "us", 60.0)
        return now.tried - before.tried, now.total - before.total

    def written_long_ago() -> None:
        connection.execute(
            "update device set state_since = now() - interval '1 h', last_online_at = now() - interval '1 h'"
            " where id = %s",
            [device_id],
        )

    before = devices.coming_up(connection, "us", 60.0)
    assert progress() == (0, 0), "no phone is linked: it is not to be online"
    devices.bind(connection, device_id, companion(), "")
    devices.set_state(connection, device_id, "online", "connected", "Connected.")
    assert progress() == (1, 1)
    written_long_ago()
    assert progress() == (0, 1), "its row tells of the run before"
    devices.set_state(connection, device_id, "connecting", "start", "The fleet starts.")
    assert progress() == (0, 1)
    devices.set_state(connection, device_id, "refreshing", "connect_refused", "Refused.")
    assert progress() == (1, 1), "it is tried again later; the fleet is up without it"
    written_long_ago()
    assert leases.hold(connection, "them", [device_id]) == {device_id}
    assert progress() == (0, 0), "another host has it"


def test_devices_and_their_backlog_are_counted(connection: Connection, device_id: int) -> None:
    neighbour = new_device(connection)
    accept_texts(connection, device_id, "one", "two")
    backlog = devices.backlog(connection)
    assert backlog[device_id]["waiting"] == 2
    assert neighbour not in backlog
    counted = {(row["platform"], row["state"]): row["devices"] for row in devices.counts(connection)}
    assert counted[None, "needs_pairing"] >= 2


# --- secrets ---------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials.key"
    path.write_bytes(secrets.token_bytes(32))
    return path


def test_credentials_are_stored_sealed_and_opened_with_the_same_key(connection: Connection, key_file: Path) -> None:
    token = {"token": "s3cr3t-token", "secret_key": "clé 🔑"}
    sealed = CredentialSeal(key_file).seal(token)
    device_id = devices.add(connection, name="sealed", platform="wablas", credentials=sealed)
    stored = row_of(connection, device_id).credentials
    assert stored is not None
    assert b"s3cr3t" not in stored
    assert CredentialSeal(key_file).open(stored) == token
    assert CredentialSeal(key_file).seal(token) != sealed


def test_another_key_or_altered_bytes_open_nothing(key_file: Path) -> None:
    sealed = CredentialSeal(key_file).seal({"token": "s3cr3t-token"})
    altered = sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:]
    with pytest.raises(ConfigurationInvalid):
        CredentialSeal(key_file).open(altered)
    key_file.write_bytes(secrets.token_bytes(32))
    with pytest.raises(ConfigurationInvalid, match=r"credentials\.key") as refused:
        CredentialSeal(key_file).open(sealed)
    assert "Restore the key" in refused.value.next_step
    assert "s3cr3t" not in str(refused.value)


def test_a_key_file_that_is_missing_or_no_key_is_named(tmp_path: Path, key_file: Path) -> None:
    key_file.write_bytes(b"too short")
    for path in (tmp_path / "nowhere.key", key_file):
        with pytest.raises(ConfigurationInvalid, match=path.name):
            CredentialSeal(path)
