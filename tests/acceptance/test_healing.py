"""Connections that break heal by themselves, and the operator's commands do what they say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fleet import Fleet

SETTINGS = {
    "max_shards": 1,
    "send_seconds": 3,
    "reconnect_seconds": 4,
    "connect_seconds": 5,
    "backoff_first_seconds": 0.5,
}
RECIPIENT = "60199000001"


@pytest.fixture(scope="module", autouse=True)
def device(daemon: Daemon) -> None:
    daemon.add_paired("shop", "60120000001")


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


def test_a_reset_connection_heals_and_the_message_arrives_once(daemon: Daemon, fleet: Fleet) -> None:
    online_since = fleet.device("shop").state_since
    daemon.ok("simulator", "fault", "reset", "--device", "shop")
    message_id = fleet.send("shop", RECIPIENT, "after the reset")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts(RECIPIENT).count("after the reset") == 1
    assert fleet.device("shop").state_since != online_since


def test_a_server_that_refuses_connections_for_a_while_is_tried_until_it_is_back(daemon: Daemon, fleet: Fleet) -> None:
    daemon.simulator.fault("refuse", seconds=8)
    daemon.simulator.fault("reset", jid=fleet.device("shop").jid)
    eventually(lambda: fleet.device("shop").state != "online", 10, "the device to notice")
    message_id = fleet.send("shop", RECIPIENT, "after the outage")
    daemon.await_message(fleet, message_id, "delivered", 40)
    rows = fleet.restarts(device="shop")
    assert rows
    assert rows[-1]["outcome"] == "ok"
    assert daemon.texts(RECIPIENT).count("after the outage") == 1


def test_a_half_open_connection_is_noticed_and_replaced(daemon: Daemon, fleet: Fleet) -> None:
    """The library's own keep-alive takes up to 40 s to notice; nothing is sent meanwhile."""
    before = len(fleet.restarts(device="shop", limit=500))
    daemon.simulator.fault("half-open", jid=fleet.device("shop").jid, seconds=50)
    eventually(lambda: fleet.device("shop").state != "online", 60, "the device to notice")
    daemon.simulator.fault("clear", jid=fleet.device("shop").jid)
    daemon.await_state(fleet, "shop", "online", 40)
    message_id = fleet.send("shop", RECIPIENT, "after the half-open socket")
    daemon.await_message(fleet, message_id, "delivered")
    assert len(fleet.restarts(device="shop", limit=500)) > before
    assert daemon.texts(RECIPIENT).count("after the half-open socket") == 1


def test_refresh_by_command_writes_its_lines_and_one_row(daemon: Daemon, fleet: Fleet) -> None:
    before = fleet.restarts(device="shop", limit=500)
    told = daemon.ok("device", "refresh", "shop")
    assert re.match(r"Refreshed shop in \d+\.\d\d s\.", told)
    fresh = fleet.restarts(device="shop", limit=500)[len(before) :]
    assert [(row["cause_code"], row["outcome"]) for row in fresh] == [("operator", "ok")]
    assert fresh[0]["seconds"] > 0
    assert daemon.log_lines("🔄 Refreshing WhatsApp device shop …")
    assert daemon.log_lines("✅ Refreshed WhatsApp device shop")
    assert daemon.json("device", "show", "shop")["restarts"][-1]["cause_code"] == "operator"


def test_a_paused_device_sends_nothing_until_it_is_resumed(daemon: Daemon, fleet: Fleet) -> None:
    daemon.ok("device", "pause", "shop")
    device = fleet.device("shop")
    assert (device.state, device.desired_state) == ("paused", "paused")
    message_id = fleet.send("shop", RECIPIENT, "after the pause")
    assert daemon.refused("device", "refresh", "shop").code == "paused"
    # A process that starts again leaves it paused.
    daemon.kill("shard-1")
    eventually(lambda: any(row["what"] == "shard" for row in fleet.restarts()), 20, "the shard's restart")
    daemon.await_state(fleet, "shop", "paused")
    assert fleet.states([message_id])[message_id]["state"] == "queued"
    daemon.ok("device", "resume", "shop")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts(RECIPIENT).count("after the pause") == 1


def test_a_platform_device_can_be_paused_resumed_and_removed_but_not_refreshed(daemon: Daemon, fleet: Fleet) -> None:
    daemon.add_platform("wablas-1", "wablas")
    assert daemon.refused("device", "refresh", "wablas-1").code == "platform_device"
    daemon.ok("device", "pause", "wablas-1")
    message_id = fleet.send("wablas-1", RECIPIENT, "after the pause")
    assert daemon.json("device", "show", "wablas-1")["state"] == "paused"
    other = fleet.send("shop", RECIPIENT, "not held up")
    daemon.await_message(fleet, other, "delivered")
    assert fleet.states([message_id])[message_id]["state"] == "queued"
    daemon.ok("device", "resume", "wablas-1")
    daemon.await_message(fleet, message_id, "sent")
    daemon.ok("device", "remove", "wablas-1")
    assert daemon.refused("send", "wablas-1", RECIPIENT, "gone").code == "unknown_device"
    assert daemon.refused("device", "show", "wablas-1").code == "unknown_device"


def test_a_removed_device_is_unlinked_at_its_phone_and_its_queue_is_cancelled(daemon: Daemon, fleet: Fleet) -> None:
    jid = daemon.add_paired("leaving", "60120000002")
    later = datetime.now(UTC) + timedelta(hours=1)
    message_id = fleet.send("leaving", RECIPIENT, "never sent", not_before=later)
    daemon.ok("device", "remove", "leaving")

    def unlinked() -> bool:
        companions = {name for phone in daemon.simulator.phones() for name in phone["companions"]}
        return jid not in companions

    eventually(unlinked, 20, "the phone to list it no longer")
    assert fleet.states([message_id])[message_id]["state"] == "cancelled"
    assert "leaving" not in [device["name"] for device in daemon.json("device", "list")]
    # The name is free again, and the phone can be linked again.
    assert daemon.add_paired("leaving", "60120000002") != jid
