"""The whole story by the command line alone, as a stranger would tell it; and what commands leave behind."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.daemon import Daemon, clean_environment, error_line_of, eventually
from tests.support.files import DOCUMENT, PICTURE, files_on_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPIENT = "+60199000001"


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with files_on_loopback() as url:
        yield url


def await_inbox(daemon: Daemon, number: str, messages: int) -> list[Any]:
    """Return what a phone received, once it is that much."""

    def received() -> list[Any] | None:
        rows = daemon.json("simulator", "inbox", number)
        return rows if len(rows) >= messages else None

    return eventually(received, 20, f"{messages} messages for {number}")


def test_a_running_daemon_tells_its_status_and_refuses_a_second_start(daemon: Daemon) -> None:
    status = daemon.json("status")
    assert (status["running"], status["ready"], status["simulator"]) == (True, True, True)
    names = [process["name"] for process in status["processes"]]
    assert {"salamander", "postgres", "sal-admin", "fleet", "router"} <= set(names)
    assert "no message leaves this machine" in daemon.ok("status").replace("\n", " ")
    second = daemon.run("start", "--simulator")
    assert second.returncode == 3
    assert str(status["pid"]) in error_line_of(second)
    assert daemon.run("start", "--simulator", "--foreground").returncode == 3
    assert daemon.json("status")["pid"] == status["pid"]


def test_nothing_listens_beyond_loopback(daemon: Daemon) -> None:
    addresses = daemon.listening()
    assert addresses
    assert {address for address, _ in addresses} == {"127.0.0.1"}


def test_a_device_is_linked_by_qr(daemon: Daemon) -> None:
    added = daemon.json("device", "add", "by-qr")
    assert (added["name"], added["platform"]) == ("by-qr", "whatsapp")
    daemon.ok("simulator", "phone", "add", "60120000001")
    with daemon.background("device", "pair", "by-qr", "--json") as pairing:
        assert pairing.stdout is not None
        shown = json.loads(pairing.stdout.readline())
        assert "2@" in shown["qr"]
        linked = daemon.json("simulator", "scan", "60120000001", "--qr", shown["qr"])
        out, errors = pairing.communicate(timeout=60)
        assert (pairing.returncode, errors) == (0, "")
    assert json.loads(out.splitlines()[-1]) == {"name": "by-qr", "state": "online", "jid": linked["jid"]}
    assert daemon.refused("device", "pair", "by-qr").code == "already_linked"


def test_a_device_is_linked_by_the_qr_on_the_screen(daemon: Daemon) -> None:
    daemon.ok("device", "add", "on-screen")
    daemon.ok("simulator", "phone", "add", "60120000003")
    with daemon.background("device", "pair", "on-screen") as pairing:
        with daemon.fleet() as fleet:
            eventually(lambda: fleet.device("on-screen").pairing_qr, 30, "the QR")
        daemon.ok("simulator", "scan", "60120000003")
        out, _ = pairing.communicate(timeout=60)
        assert pairing.returncode == 0
    assert "█" in out or "▀" in out or "▄" in out
    assert "Linked: on-screen is 60120000003" in out


def test_a_device_is_linked_by_a_code(daemon: Daemon) -> None:
    daemon.ok("device", "add", "by-code")
    daemon.ok("simulator", "phone", "add", "60120000002")
    with daemon.background("device", "pair", "by-code", "--code", "60120000002", "--json") as pairing:
        assert pairing.stdout is not None
        code = json.loads(pairing.stdout.readline())["code"]
        daemon.ok("simulator", "enter-code", "60120000002", code)
        out, _ = pairing.communicate(timeout=60)
        assert pairing.returncode == 0
    assert json.loads(out.splitlines()[-1])["state"] == "online"


def test_text_and_media_reach_the_phone_exactly_as_they_were_sent(daemon: Daemon, files: str) -> None:
    text = "  Two lines,\n*stars*, _underscores_, 中文, العربية, 👩‍👩‍👧 and [brackets]  "
    sent = daemon.json("send", "by-qr", RECIPIENT, text, "--wait")
    assert sent["state"] in {"sent", "delivered"}
    daemon.ok("send", "by-code", RECIPIENT, "A picture 🚚", "--media", f"{files}/parcel.png", "--wait")
    daemon.ok("send", "by-qr", RECIPIENT, "Your invoice", "--media", f"{files}/invoice.pdf", "--wait")
    daemon.ok("send", "by-qr", RECIPIENT, "--media", f"{files}/parcel.png", "--as", "document", "--wait")
    words, picture, invoice, as_document = await_inbox(daemon, RECIPIENT, 4)
    assert (words["text"], words["kind"], words["sender"]) == (text, "text", "60120000001")
    assert (picture["kind"], picture["caption"], picture["sender"]) == ("image", "A picture 🚚", "60120000002")
    assert (invoice["kind"], invoice["caption"], invoice["file_name"]) == ("document", "Your invoice", "invoice.pdf")
    assert (as_document["kind"], as_document["file_name"]) == ("document", "parcel.png")
    wanted = [hashlib.sha256(content).hexdigest() for content in (PICTURE, DOCUMENT, PICTURE)]
    assert [row["media_sha256"] for row in (picture, invoice, as_document)] == wanted
    assert daemon.json("message", str(sent["id"]))["external_id"] == words["id"]


def test_media_that_cannot_be_had_fails_and_the_lane_goes_on(daemon: Daemon, files: str) -> None:
    finished = daemon.run("send", "by-qr", "+60199000002", "gone", "--media", f"{files}/gone.png", "--wait", "--json")
    assert finished.returncode != 0
    assert json.loads(finished.stdout)["state"] == "failed"
    daemon.ok("send", "by-qr", "+60199000002", "next", "--wait")
    assert [row["text"] for row in await_inbox(daemon, "60199000002", 1)] == ["next"]


@pytest.mark.parametrize("platform", ["wablas", "whacenter"])
def test_a_platform_device_sends_one_request_a_message_and_is_never_refreshed(
    daemon: Daemon, files: str, platform: str
) -> None:
    credentials = {f"SALAMANDER_CREDENTIAL_{name.upper()}": value for name, value in DEFAULT_ACCOUNTS[platform].items()}
    base_url = daemon.json("simulator", "info")["platforms"][platform]
    add = ("device", "add", platform, "--platform", platform, "--base-url", base_url)
    daemon.ok(*add, environment=clean_environment(**credentials))
    text = "Total: 5 + 5 = 10 % & more?\nSecond line, 100% ünïcode 🚚"
    daemon.ok("send", platform, RECIPIENT, text, "--wait")
    daemon.ok("send", platform, RECIPIENT, "Your invoice", "--media", f"{files}/invoice.pdf", "--wait")
    words, media = daemon.json("simulator", "platform-log", platform)
    assert (words["to"], words["kind"], words["text"]) == ("60199000001", "text", text)
    assert (media["to"], media["text"], media["media_url"]) == (
        "60199000001",
        "Your invoice",
        f"{files}/invoice.pdf",
    )
    title = {"wablas": "Wablas", "whacenter": "Whacenter"}[platform]
    assert daemon.log_lines(f"[PLATFORM-SEND] Sending message via {title}")
    assert not [line for line in daemon.log_lines("🔄") if platform in line]
    assert daemon.json_lines("restarts", "--device", platform) == []
    logged = daemon.home.log_file.read_text(encoding="utf-8")
    assert not [value for value in credentials.values() if value in logged]


def test_a_platform_that_does_not_say_success_is_not_believed(daemon: Daemon) -> None:
    daemon.ok("simulator", "fault", "failure-body", "--platform", "whacenter")
    finished = daemon.run("send", "whacenter", RECIPIENT, "no success", "--json")
    daemon.ok("simulator", "fault", "empty-200", "--platform", "wablas")
    doubtful = daemon.json("send", "wablas", RECIPIENT, "an empty reply")
    try:
        with daemon.fleet() as fleet:
            row = daemon.await_message(fleet, json.loads(finished.stdout)["id"], "failed queued")
            assert row["state"] != "sent"
            # Wablas can be asked: it has the message, so it was sent after all, once.
            daemon.await_message(fleet, doubtful["id"], "sent", 40)
    finally:
        daemon.ok("simulator", "fault", "clear", "--platform", "whacenter")
        daemon.ok("simulator", "fault", "clear", "--platform", "wablas")
    log = [row["text"] for row in daemon.json("simulator", "platform-log", "wablas")]
    assert log.count("an empty reply") == 1


def test_every_table_can_be_read_by_people(daemon: Daemon) -> None:
    for command in (
        ("status",),
        ("device", "show", "by-qr"),
        ("messages",),
        ("message", "1"),
        ("restarts",),
        ("events",),
        ("logs",),
        ("simulator", "stats"),
        ("simulator", "inbox", RECIPIENT),
    ):
        assert daemon.ok(*command).strip(), command
