"""Leases on a real server: a device is connected by one host at a time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.home import Home
from storage import leases
from storage.database import Connection, connect
from tests.support.outbox import new_device


@pytest.fixture
def device_ids(connection: Connection) -> list[int]:
    return [new_device(connection) for _ in range(3)]


def run_out(connection: Connection, device_id: int) -> None:
    connection.execute("update lease set expires_at = now() - interval '1 second' where device_id = %s", [device_id])


def token_of(connection: Connection, device_id: int) -> int:
    held = leases.holder_of(connection, device_id)
    assert held is not None
    return int(held["token"])


def test_what_one_host_holds_no_other_gets(connection: Connection, device_ids: list[int]) -> None:
    first, second, third = device_ids
    assert leases.hold(connection, "here", [first, second]) == {first, second}
    assert leases.hold(connection, "there", device_ids) == {third}
    assert leases.hold(connection, "here", device_ids) == {first, second}
    assert leases.hold(connection, "here", []) == set()


def test_a_renewal_keeps_the_token_and_a_change_of_hands_raises_it(
    connection: Connection, device_ids: list[int]
) -> None:
    device_id = device_ids[0]
    leases.hold(connection, "here", [device_id])
    token = token_of(connection, device_id)
    leases.hold(connection, "here", [device_id])
    assert token_of(connection, device_id) == token
    run_out(connection, device_id)
    assert leases.holder_of(connection, device_id) is None
    assert leases.hold(connection, "there", [device_id]) == {device_id}
    assert token_of(connection, device_id) == token + 1
    assert leases.hold(connection, "here", [device_id]) == set()


def test_a_host_that_leaves_frees_what_it_held_and_nothing_else(connection: Connection, device_ids: list[int]) -> None:
    first, second, _ = device_ids
    leases.hold(connection, "leaving", [first])
    leases.hold(connection, "staying", [second])
    leases.release(connection, "leaving")
    assert leases.holder_of(connection, first) is None
    assert leases.hold(connection, "other", [first, second]) == {first}


def test_of_several_hosts_at_once_one_gets_each_device(storage_url: str, connection: Connection) -> None:
    wanted = [new_device(connection) for _ in range(50)]

    def take(number: int) -> set[int]:
        with connect(storage_url) as own:
            return leases.hold(own, f"host-{number}", wanted if number % 2 else reversed(wanted))

    with ThreadPoolExecutor(4) as threads:
        taken = Counter(device_id for held in threads.map(take, range(4)) for device_id in held)
    assert taken == Counter(wanted)


def test_an_installation_keeps_its_name_and_shares_it_with_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    name = leases.holder_name(Home(tmp_path / "one"))
    assert leases.holder_name(Home(tmp_path / "one")) == name
    assert leases.holder_name(Home(tmp_path / "two")) != name
