"""Care for the numbers, driven as its operator does: limits, opt-outs by command, file and word, absent recipients."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"max_shards": 1, "opt_out_words": ["STOP", "BERHENTI"]}
PHONE = "60120000051"


@pytest.fixture(scope="module", autouse=True)
def devices(daemon: Daemon) -> None:
    daemon.add_paired("shop", PHONE)
    daemon.add_platform("wablas-1", "wablas")


def send(daemon: Daemon, device: str, to: str, text: str, *more: str) -> Any:
    """Send one message, wait for what becomes of it, and return its row."""
    message_id = daemon.json("send", device, to, text, *more)["id"]
    with daemon.fleet() as fleet:
        return daemon.await_message(fleet, message_id, "sent delivered read failed cancelled expired")


def platform_texts(daemon: Daemon, number: str) -> list[str]:
    return [row["text"] for row in daemon.simulator.platform_log("wablas") if row["to"] == number]


def test_a_number_that_is_not_on_whatsapp_fails_and_the_next_one_is_written_to(daemon: Daemon) -> None:
    row = send(daemon, "shop", "60199951000", "anybody there?")
    assert (row["state"], row["reason_code"]) == ("failed", "not_on_whatsapp")
    again = send(daemon, "shop", "60199951000", "still nobody?")
    assert again["reason_code"] == "not_on_whatsapp"
    assert send(daemon, "shop", "60199951001", "hello")["state"] in {"sent", "delivered"}
    assert daemon.texts("60199951001") == ["hello"]


@pytest.mark.parametrize("word", ["STOP", " berhenti "])
def test_a_word_opts_out_and_every_route_obeys(daemon: Daemon, word: str) -> None:
    number = f"6019995200{len(word)}"
    assert send(daemon, "shop", number, "You may answer STOP.")["state"] in {"sent", "delivered"}
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    waiting = [daemon.json("send", name, number, "later", "--at", later)["id"] for name in ("shop", "wablas-1")]
    daemon.simulator.say(number, PHONE, f"please {word}")
    daemon.simulator.say(number, PHONE, word)
    with daemon.fleet() as fleet:
        for message_id in waiting:
            row = daemon.await_message(fleet, message_id, "cancelled")
            assert row["reason_code"] == "opted_out"
    for name in ("shop", "wablas-1"):
        assert daemon.refused("send", name, number, "one more").code == "opted_out"
    [listed] = [row for row in daemon.json("opt-out", "list") if row["number"] == number]
    assert (listed["source"], listed["device"], listed["word"]) == ("keyword", "shop", word.strip())
    said = [row["body"] for row in daemon.json_lines("events", "--device", "shop") if row["kind"] == "message"]
    assert [(body["sender_number"], body["chat_number"], body["text"]) for body in said[-2:]] == [
        (number, number, f"please {word}"),
        (number, number, word),
    ]
    assert daemon.json("opt-out", "remove", number) == {"removed": 1}
    assert send(daemon, "shop", number, "welcome back")["state"] in {"sent", "delivered"}
    assert daemon.texts(number) == ["You may answer STOP.", "welcome back"]
    assert platform_texts(daemon, number) == []


def test_opt_outs_by_command_and_file_are_obeyed_by_a_platform_device_too(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "gone.csv"
    file.write_text("number,why\n+60 19-995 3001,by mail\n60199953002,by phone\n60199953002,twice\n", encoding="utf-8")
    assert daemon.json("opt-out", "add", "60199953001") == {"added": 1, "known": 0, "cancelled": 0}
    assert daemon.json("opt-out", "import", str(file)) == {"added": 1, "known": 1, "cancelled": 0}
    for number in ("60199953001", "60199953002"):
        refusal = daemon.refused("send", "wablas-1", number, "hello")
        assert refusal.code == "opted_out"
        assert "opt-out remove" in refusal.next_step
    assert daemon.json("status")["care"]["opted_out"] >= 2
    batch = tmp_path / "campaign.csv"
    batch.write_text("to,text\n60199953001,hello\n60199953003,hello\n", encoding="utf-8")
    finished = daemon.run("send", "--csv", str(batch), "wablas-1", "--wait")
    assert finished.returncode != 0
    assert "opted out" in finished.stderr
    assert platform_texts(daemon, "60199953001") == []
    assert platform_texts(daemon, "60199953003") == ["hello"]


def test_a_file_with_a_bad_line_changes_nothing_unless_that_is_wanted(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "gone.csv"
    file.write_text("60199954001\nnobody 12\n60199954002\n", encoding="utf-8")
    before = daemon.json("opt-out", "list")
    finished = daemon.run("opt-out", "import", str(file))
    assert finished.returncode != 0
    assert "line 2" in finished.stderr
    assert daemon.json("opt-out", "list") == before
    daemon.ok("opt-out", "import", str(file), "--skip-refused")
    assert {row["number"] for row in daemon.json("opt-out", "list")} >= {"60199954001", "60199954002"}
    assert daemon.refused("opt-out", "add", "12").code == "bad_number"
    assert daemon.refused("opt-out", "import", str(tmp_path / "none.csv")).code == "bad_csv"


def test_a_gap_shows_in_the_recipients_times_and_the_device_tells_why_it_waits(daemon: Daemon) -> None:
    gap = 2.0
    assert daemon.json("device", "limit", "shop", "--gap", str(gap))["own"] == ["gap_seconds"]
    numbers = [f"6019995500{last}" for last in range(1, 5)]
    with daemon.fleet() as fleet:
        ids = [fleet.send("shop", number, "in good time") for number in numbers]

        def held() -> Any:
            shown = daemon.json("device", "show", "shop")
            return shown if shown["held_code"] == "gap" else None

        shown = eventually(held, 10, "the lane to wait")
        assert "between two sends" in shown["held_reason"]
        for message_id in ids:
            daemon.await_message(fleet, message_id, "sent delivered")
        moments = [
            [each["at"] for each in (fleet.message(message_id) or {})["story"] if each["state"] == "sending"]
            for message_id in ids
        ]
    times = sorted(daemon.simulator.inbox(number)[0]["time"] for number in numbers)
    # A recipient sees whole seconds; each is rounded down.
    assert all(later - earlier >= gap - 1 for earlier, later in itertools.pairwise(times))
    assert times[-1] - times[0] >= gap * 3 - 1
    claimed = [moment for [moment] in moments]
    assert all((later - earlier).total_seconds() >= gap for earlier, later in itertools.pairwise(claimed))
    assert daemon.json("device", "limit", "shop", "--reset")["own"] == []


def test_a_cap_of_a_platform_device_holds_its_lane_and_lifting_it_lets_it_go(daemon: Daemon) -> None:
    daemon.ok("device", "limit", "wablas-1", "--per-hour", "1")
    numbers = [f"6019995600{last}" for last in range(1, 4)]
    with daemon.fleet() as fleet:
        ids = [fleet.send("wablas-1", number, "one an hour") for number in numbers]
        eventually(lambda: fleet.device("wablas-1").held_code == "hourly_cap", 10, "the lane to wait")
        assert fleet.states(ids)[ids[-1]]["state"] == "queued"
        status = daemon.json("status")
        [told] = [each for each in status["devices"] if each["name"] == "wablas-1"]
        assert "messages an hour" in told["held_reason"]
        assert status["care"]["devices_with_limits"] == 1
        assert "Lanes that wait" in daemon.ok("status")
        assert "lane waits" in daemon.ok("device", "show", "wablas-1")
        daemon.ok("device", "limit", "wablas-1", "--per-hour", "0")
        for message_id in ids:
            daemon.await_message(fleet, message_id, "sent delivered")
    assert daemon.refused("device", "limit", "wablas-1", "--gap", "-1").code == "bad_limit"
    assert daemon.refused("device", "limit", "nobody", "--gap", "1").code == "unknown_device"


def test_times_on_the_command_line_are_checked_and_kept(daemon: Daemon) -> None:
    def inside(**span: float) -> str:
        return (datetime.now(UTC) + timedelta(**span)).isoformat()

    def code(*times: str) -> str:
        return daemon.refused("send", "shop", "60199957001", "x", *times).code

    assert code("--at", "2030-01-31T09:00") == "bad_time"
    assert code("--expires", "soon") == "bad_time"
    assert code("--at", inside(hours=2), "--expires", inside(hours=1)) == "bad_time"
    assert code("--expires", inside(hours=-1)) == "already_expired"
    at = int(datetime.now(UTC).timestamp()) + 4
    moment = datetime.fromtimestamp(at, UTC).isoformat()
    row = send(daemon, "shop", "60199957001", "on time", "--at", moment, "--expires", inside(hours=1))
    assert row["state"] in {"sent", "delivered"}
    [arrived] = daemon.simulator.inbox("60199957001")
    assert arrived["time"] >= at


def test_a_number_that_cannot_be_checked_is_not_written_to_until_it_can(daemon: Daemon) -> None:
    number = "60199958001"
    daemon.simulator.fault("half-open", PHONE)
    with daemon.fleet() as fleet:
        message_id = fleet.send("shop", number, "checked first")

        def unchecked() -> bool:
            story = (fleet.message(message_id) or {})["story"]
            return any(each["reason_code"] == "not_checked" for each in story)

        eventually(unchecked, 45, "the check to fail")
        daemon.simulator.fault("clear", PHONE)
        daemon.await_message(fleet, message_id, "sent delivered", 60)
    assert daemon.texts(number) == ["checked first"]
