"""Delivery reports from end to end: a daemon with the gateway, and stand-ins that report what they were sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.daemon import Daemon, eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("home") / "home", {"webhook_port": port}) as daemon:
        yield daemon


def test_reports_move_a_message_to_read_and_the_address_survives_the_death_of_the_gateway(
    running: Daemon, port: int
) -> None:
    running.add_platform("desk-1", "wablas")
    shown = running.json("device", "webhook", "desk-1")
    url = shown["url"]
    assert url.startswith(f"http://127.0.0.1:{port}/webhooks/")
    assert (shown["signed"], shown["reachable"]) == (False, False)
    assert url in running.ok("device", "webhook", "desk-1")
    running.simulator.platform_callback("wablas", url)
    with running.fleet() as fleet:
        first = fleet.send("desk-1", "+60123456789", "hello")
        running.await_message(fleet, first, "read")
        running.simulator.platform_fault("wablas", "unordered-callbacks")
        second = fleet.send("desk-1", "+60123456789", "in any order")
        running.await_message(fleet, second, "read")
        running.simulator.platform_fault("wablas", "clear")

        running.kill("gateway")
        running.process("gateway")
        assert running.json("device", "webhook", "desk-1")["url"] == url
        eventually(lambda: answers(port), 30, "the gateway to listen again")
        third = fleet.send("desk-1", "+60123456789", "after its death")
        running.await_message(fleet, third, "read")
        restarts = [row for row in fleet.restarts() if row["what"] == "gateway"]
        assert [row["cause_code"] for row in restarts] == ["exited"]
    secret = url.rsplit("/", 2)[1]
    for log in (running.home.log_file, running.home.logs / "daemon.log"):
        assert secret not in log.read_text(encoding="utf-8")


def test_a_signed_report_comes_by_the_address_that_each_message_names(running: Daemon) -> None:
    running.add_platform("desk-2", "twilio")
    with running.fleet() as fleet:
        message_id = fleet.send("desk-2", "+60123456789", "hello")
        running.await_message(fleet, message_id, "read")
        story = [(each["state"], each["reason_code"]) for each in (fleet.message(message_id) or {})["story"]]
    assert story[:3] == [("queued", "accepted"), ("sending", "attempt"), ("sent", "sent")]
    assert story[-1] == ("read", "receipt")


@pytest.mark.parametrize("platform", ["meta_cloud", "twilio"])
def test_a_report_settles_a_message_whose_reply_was_lost(running: Daemon, platform: str) -> None:
    name = f"lost-{platform}"
    running.add_platform(name, platform)
    before = len(running.simulator.platform_log(platform))
    if platform != "twilio":  # it is told the address with each message
        running.simulator.platform_callback(platform, running.json("device", "webhook", name)["url"])
    running.simulator.platform_fault(platform, "reset-after-recording")
    with running.fleet() as fleet:
        message_id = fleet.send(name, "+60123456789", "hello")
        row = running.await_message(fleet, message_id, "read")
        states = [each["state"] for each in (fleet.message(message_id) or {})["story"]]
    running.simulator.platform_fault(platform, "clear")
    assert row["state"] == "read"
    assert "in_doubt" in states
    assert states.count("sending") == 1
    assert len(running.simulator.platform_log(platform)) == before + 1


def test_devices_without_webhooks_have_no_address(running: Daemon) -> None:
    running.add_platform("desk-4", "whacenter")
    with running.fleet() as fleet:
        fleet.add_device("shop-1")
    assert running.refused("device", "webhook", "desk-4").code == "no_webhook"
    assert running.refused("device", "webhook", "shop-1").code == "no_webhook"
    assert running.refused("device", "webhook", "nobody").code == "unknown_device"


def test_a_taken_port_keeps_nobody_from_sending(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        daemon = Daemon(tmp_path / "home", {"webhook_port": port})
        try:
            daemon.start()
            daemon.add_platform("desk-1", "wablas")
            with daemon.fleet() as fleet:
                message_id = fleet.send("desk-1", "+60123456789", "hello")
                daemon.await_message(fleet, message_id, "sent")
            assert daemon.log_lines("The webhook listener cannot listen")
            taken.close()
            eventually(lambda: answers(port), 30, "the gateway to take the port once it is free")
        finally:
            daemon.stop()
            left = daemon.kill_everything()
    assert not left


def test_a_provider_that_cannot_reach_this_machine_is_not_asked_to_report_and_status_says_so(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", {"webhook_port": free_port()})
    try:
        daemon.ok("start")
        with daemon.fleet() as fleet:
            fleet.add_device("desk-1", platform="twilio", credentials=DEFAULT_ACCOUNTS["twilio"])
            fleet.add_device("desk-2", platform="whacenter", credentials=DEFAULT_ACCOUNTS["whacenter"])
        eventually(lambda: daemon.log_lines("Twilio is not asked to report"), 30, "the log to say so")
        [notice] = daemon.json("status")["notices"]
        assert "webhook_base_url" in notice
        assert notice in daemon.ok("status")
    finally:
        daemon.stop()
        left = daemon.kill_everything()
    assert not left


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 404
    except requests.ConnectionError:
        return False
