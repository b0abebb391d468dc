"""What cannot be done is refused in one clear line, with a status other than 0, and changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from config.errors import Refused
from tests.support.daemon import Daemon, error_line_of, eventually, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPIENT = "+60199000001"


@pytest.fixture(scope="module", autouse=True)
def device(daemon: Daemon) -> None:
    daemon.add_platform("shop", "wablas")
    daemon.ok("device", "add", "unpaired")


def everything(daemon: Daemon) -> Any:
    """Return what a refusal must leave as it is."""
    with daemon.fleet() as fleet:
        return [
            fleet.message_counts(),
            fleet.devices(),
            fleet.restarts(),
            daemon.simulator.platform_log("wablas"),
            daemon.simulator.all_inboxes(),
        ]


@pytest.fixture
def _nothing_changes(daemon: Daemon) -> Iterator[None]:
    before = everything(daemon)
    yield
    assert everything(daemon) == before


@pytest.mark.usefixtures("_nothing_changes")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("send", "nobody", RECIPIENT, "hello"), "unknown_device"),
        (("send", "shop", "12", "hello"), "bad_number"),
        (("send", "shop", "0199000001", "hello"), "bad_number"),
        (("send", "shop", RECIPIENT, ""), "empty_text"),
        (("send", "shop", RECIPIENT, "  \n "), "empty_text"),
        (("send", "shop", RECIPIENT), "usage"),
        (("send", "shop", RECIPIENT, "hello", "--media", "ftp://example.com/a.png"), "bad_media"),
        (("send", "shop", RECIPIENT, "hello", "--media", "https://user:word@example.com/a.png"), "bad_media"),
        (("messages", "--device", "nobody"), "unknown_device"),
        (("messages", "--state", "lost"), "bad_state"),
        (("message", "999999"), "unknown_message"),
        (("device", "show", "nobody"), "unknown_device"),
        (("device", "pair", "shop"), "platform_device"),
        (("device", "refresh", "shop"), "platform_device"),
        (("device", "refresh", "unpaired"), "needs_pairing"),
        (("device", "add", "shop"), "name_taken"),
        (("device", "add", "no spaces please"), "bad_name"),
        (("device", "add", "new", "--platform", "pigeon"), "not_found"),
        (("device", "add", "new", "--platform", "wablas"), "credential_missing"),
        (("device", "add", "new", "--proxy", "http://user:word@127.0.0.1:1"), "bad_proxy"),
        (("restarts", "--device", "nobody"), "unknown_device"),
        (("events", "--device", "nobody"), "unknown_device"),
        (("start", "--simulator"), None),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_a_command_that_cannot_be_carried_out_says_so_in_one_line(
    daemon: Daemon, arguments: tuple[str, ...], code: str | None
) -> None:
    if code is None:
        assert "already runs" in error_line_of(daemon.run(*arguments))
        return
    refusal = daemon.refused(*arguments)
    assert refusal.code == code
    assert refusal.sentence.endswith(".")


@pytest.mark.usefixtures("_nothing_changes")
@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "pause", "nobody"),
        ("device", "remove", "nobody"),
        ("cancel", "999999"),
        ("resolve", "999999", "--sent"),
        ("resolve", "999999"),
        ("simulator", "scan", "60120000001"),
        ("simulator", "fault", "earthquake"),
        ("simulator", "enter-code", "60120000001", "AAAA-BBBB"),
    ],
    ids=" ".join,
)
def test_people_read_the_error_and_the_next_step_in_one_line(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    error_line_of(daemon.run(*arguments))


@pytest.mark.usefixtures("_nothing_changes")
def test_a_text_of_ten_megabytes_is_refused_by_the_client_and_from_a_file(daemon: Daemon, tmp_path: Path) -> None:
    long = "x" * 10_000_000
    with daemon.fleet() as fleet, pytest.raises(Refused) as raised:
        fleet.send("shop", RECIPIENT, long)
    assert raised.value.code == "text_too_long"
    assert "10,000,000" in raised.value.sentence
    file = tmp_path / "long.csv"
    file.write_text(f"device,to,text\nshop,{RECIPIENT},{long}\n", encoding="utf-8")
    finished = daemon.run("send", "--csv", str(file))
    assert finished.returncode != 0
    assert len(finished.stderr) < 1000
    assert "Traceback" not in finished.stderr


@pytest.mark.usefixtures("_nothing_changes")
def test_a_file_with_broken_lines_names_each_and_sends_nothing(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(
        "device,to,text\n"
        f"shop,{RECIPIENT},good\n"
        f"nobody,{RECIPIENT},no such device\n"
        "shop,12,bad number\n"
        f"shop,{RECIPIENT},\n"
        f"shop,{RECIPIENT},one,too many\n"
        f"shop,{RECIPIENT},good again\n",
        encoding="utf-8",
    )
    finished = daemon.run("send", "--csv", str(file))
    assert finished.returncode != 0
    lines = finished.stderr.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["line 3", "line 4", "line 5", "line 6"]
    assert lines[-1].startswith("Error: ")
    assert "nothing was sent" in lines[-1]
    as_json = daemon.run("send", "--csv", str(file), "--json")
    assert [json.loads(line)["line"] for line in as_json.stdout.splitlines()] == [3, 4, 5, 6]
    assert refusal_of(as_json).code == "bad_csv"


@pytest.mark.usefixtures("_nothing_changes")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"device,to,text\n",
        b"to,words\n+60199000001,hello\n",
        b"\xff\xfe\x00",
        b'device,to,text\nshop,"+60199000001,x\n',
    ],
    ids=["empty", "only a header", "wrong columns", "no UTF-8", "an open quote"],
)
def test_a_file_that_is_no_message_table_is_refused(daemon: Daemon, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes(content)
    assert daemon.refused("send", "--csv", str(file)).code == "bad_csv"


@pytest.mark.usefixtures("_nothing_changes")
def test_a_missing_file_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.refused("send", "--csv", str(tmp_path / "nowhere.csv")).code == "bad_csv"


def test_the_good_lines_of_a_broken_file_are_sent_when_asked_for(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(f"device,to,text\nshop,{RECIPIENT},the good line\nshop,12,the bad one\n", encoding="utf-8")
    finished = daemon.run("send", "--csv", str(file), "--skip-refused", "--json")
    assert refusal_of(finished).code == "lines_refused"

    def arrived() -> bool:
        return [row["text"] for row in daemon.simulator.platform_log("wablas")] == ["the good line"]

    eventually(arrived, 15, "the good line to arrive")
