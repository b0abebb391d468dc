"""The pure parts of the dashboard: shapes of charts, the lock-out, what the map is told, passwords and moments."""

from __future__ import annotations

import itertools
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.errors import Refused
from config.log_tail import LogTail
from gateway.dashboard import charts, lockout
from gateway.dashboard.compose import message_of
from gateway.dashboard.devices import qr_svg
from gateway.dashboard.fleet import changes, counted, in_groups
from gateway.dashboard.history import each_once
from gateway.dashboard.rendering import environment, moment, shorten
from gateway.dashboard.states import DEVICE_STATES, MESSAGE_STATES, look_of
from storage import passwords
from storage.devices import Device
from storage.outbox import FINAL_STATES
from storage.traffic import DELIVERY_BOUNDS, Span, nothing_at
from storage.users import Failures
from supervisors.account import account_of
from supervisors.policy import POLICIES

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def span(**values: object) -> Span:
    return Span(**{**vars(nothing_at(0)), **values})


# --- charts ----------------------------------------------------------------------------------------------


def test_the_tallest_bar_stays_within_the_plot_and_stands_on_its_floor() -> None:
    drawn = charts.traffic_chart([span(sent=7), span(), span(sent=93, failed=1)], 60)
    floor = charts.HEIGHT - charts.BOTTOM
    assert all(bar.y >= charts.TOP for bar in drawn.bars)
    assert all(bar.y + bar.height == pytest.approx(floor, abs=0.02) for bar in drawn.bars)
    assert all(charts.LEFT <= bar.x <= drawn.width - charts.RIGHT - bar.width for bar in drawn.bars)
    assert [tick.label for tick in drawn.upwards] == ["0", "25", "50", "75", "100"]
    tall = max(drawn.bars, key=lambda bar: bar.height)
    assert tall.title == "93 sent, now"
    assert tall.height == pytest.approx(0.93 * (floor - charts.TOP), abs=0.02)


def test_bars_of_one_span_stand_beside_each_other() -> None:
    drawn = charts.traffic_chart([span(sent=4, delivered=4)] * 3, 60)
    ends = [(bar.x, bar.x + bar.width) for bar in sorted(drawn.bars, key=lambda bar: bar.x)]
    assert len(ends) == 6
    assert all(left[1] <= right[0] + 0.02 for left, right in itertools.pairwise(ends))


def test_a_small_value_beside_a_large_one_can_still_be_seen() -> None:
    drawn = charts.traffic_chart([span(sent=10_000), span(failed=1)], 60)
    assert min(bar.height for bar in drawn.bars) >= 1


def test_a_period_without_anything_says_so() -> None:
    nothing = [span()] * 5
    for draw in (charts.traffic_chart, charts.delivery_chart, charts.healing_chart):
        assert draw(nothing, 60).empty
    assert charts.sums_of(nothing)["half delivered within"] == "–"


def test_a_line_breaks_where_nothing_was_delivered() -> None:
    fast = (9, 0, 0, 0, 0, 0, 0, 0, 0)
    drawn = charts.delivery_chart(
        [span(delivery=each) for each in (fast, fast, (0,) * 9, fast, (0,) * 9, fast, fast)], 60
    )
    median = drawn.curves[0]
    assert median.path.count("M") == 2
    assert median.path.count("L") == 2
    assert len(median.dots) == 1


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ((10, 0, 0, 0, 0, 0, 0, 0, 0), 0.5, 0.5),
        ((0, 10, 0, 0, 0, 0, 0, 0, 0), 0.5, 1.5),
        ((5, 0, 0, 5, 0, 0, 0, 0, 0), 0.95, 9.5),
        ((0, 0, 0, 0, 0, 0, 0, 0, 1), 1.0, 3600.0),
        ((0,) * 9, 0.5, 0.0),
    ],
)
def test_quantiles_are_estimated_inside_their_bucket(buckets: tuple[int, ...], share: float, expected: float) -> None:
    assert len(buckets) == len(DELIVERY_BOUNDS) + 1
    assert charts.quantile(buckets, share) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.3, 4.0, 5.0, 9.9, 41.0, 60.0, 61.0, 99.0, 101.0, 12_345.0, 1e9])
def test_the_scale_ends_at_a_round_number_above_the_values(value: float) -> None:
    top = charts.nice_ceiling(value)
    assert value <= top <= max(4.0, 2 * value)
    assert float(f"{top:.0e}") == top


def test_the_time_axis_begins_at_the_period_and_ends_now() -> None:
    labels = [tick.label for tick in charts.time_ticks(60, 60, 720)]
    assert labels == ["1 h ago", "45 min ago", "30 min ago", "15 min ago", "now"]


# --- the lock-out ----------------------------------------------------------------------------------------


def test_a_name_is_locked_until_its_first_failure_no_longer_counts() -> None:
    name, address = lockout.name_subject("Ada "), lockout.address_subject("10.0.0.1")
    assert name == lockout.name_subject("ada")
    began = NOW - timedelta(seconds=100)
    few = {name: Failures(lockout.NAME_LIMIT - 1, began)}
    many = {name: Failures(lockout.NAME_LIMIT, began)}
    office = {address: Failures(lockout.ADDRESS_LIMIT, NOW)}
    assert lockout.locked_for(name, address, few, NOW) == 0
    assert lockout.locked_for(name, address, many, NOW) == lockout.WINDOW_SECONDS - 100
    assert lockout.locked_for(name, address, {**many, **office}, NOW) == lockout.WINDOW_SECONDS


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.9", "", "10.0.0.9"),
        ("10.0.0.9", "1.2.3.4", "10.0.0.9"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("::1", "2001:DB8::1", "2001:db8::1"),
        ("127.0.0.1", "1.2.3.4, anything else", "127.0.0.1"),
    ],
)
def test_only_a_proxy_on_this_machine_may_say_whom_it_speaks_for(peer: str, forwarded: str, address: str) -> None:
    assert lockout.address_of(peer, forwarded) == address


# --- passwords and codes ---------------------------------------------------------------------------------


def test_a_password_matches_its_hash_and_nothing_else_does() -> None:
    hashed = passwords.hash_password("an invented password")
    assert hashed.startswith("$argon2id$")
    assert passwords.password_matches("an invented password", hashed)
    assert not passwords.password_matches("an invented passwort", hashed)
    assert not passwords.password_matches("an invented password", None)
    assert not passwords.password_matches("x" * 10_000, hashed)
    assert not passwords.is_dated(hashed)


@pytest.mark.parametrize("password", ["", "a-secret", "x" * 2000])
def test_a_password_that_is_refused_is_not_quoted(password: str) -> None:
    with pytest.raises(Refused) as refused:
        passwords.hash_password(password)
    assert not password or password not in refused.value.sentence


def test_codes_are_read_however_they_are_typed() -> None:
    code = passwords.new_code()
    assert len(code) == 14
    assert passwords.code_hash(f" {code.lower().replace('-', ' ')} ") == passwords.code_hash(code)
    assert passwords.code_hash(code) != passwords.code_hash(passwords.new_code())


@pytest.mark.parametrize("name", ["", " ", "-ada", "a b", "ada\x00", "a" * 65, "<b>"])
def test_names_of_users_are_plain(name: str) -> None:
    with pytest.raises(Refused):
        passwords.user_name(name)
    assert passwords.user_name(" Ada.L ") == "ada.l"


# --- the map ---------------------------------------------------------------------------------------------


def test_the_map_is_told_only_what_changed() -> None:
    before = {1: "online", 2: "online", 3: "paused"}
    assert changes(before, dict(before)) is None
    assert changes(before, {**before, 2: "refreshing"}) == {"changed": [2, "refreshing"], "others": False}
    assert changes(before, {1: "online", 2: "online"}) == {"changed": [], "others": True}
    assert changes(before, {**before, 4: "online"}) == {"changed": [], "others": True}


def test_every_state_has_a_look_and_a_group() -> None:
    assert {policy.state for policy in POLICIES.values()} <= DEVICE_STATES.keys()
    assert FINAL_STATES | {"queued", "sending", "in_doubt"} == MESSAGE_STATES.keys()
    assert look_of("something_new").title == "something new"
    assert counted(["online", "paused", "online", "odd"]) == [("paused", 1), ("online", 2), ("odd", 1)]
    assert in_groups(["online", "banned", "odd"]) == {"well": 1, "moving": 1, "resting": 0, "needs-you": 1}


def test_every_state_differs_from_the_others_by_class_in_the_styles() -> None:
    styles = (Path(charts.__file__).parent / "static" / "salamander.css").read_text(encoding="utf-8")
    groups = {look.group for look in (*DEVICE_STATES.values(), *MESSAGE_STATES.values())}
    assert all(f".g-{group}" in styles for group in groups)


def test_one_that_is_tried_again_and_again_hides_no_other() -> None:
    rows = [{"what": "shard", "name": "shard-1", "id": 1}]
    rows += [{"what": "device", "name": f"shop-{number % 3}", "id": number} for number in range(2, 40)]
    assert [row["id"] for row in each_once(rows)] == [39, 38, 37, 1]


# --- small things ----------------------------------------------------------------------------------------


def test_moments_texts_and_codes_are_escaped_and_short() -> None:
    assert str(moment(None)) == "–"
    assert str(moment(NOW)).startswith('<time datetime="2030-01-01T12:00:00.000+00:00">2030-01-01 12:00:00 UTC')
    assert shorten("a\n b" + "c" * 100, 10) == "a bcccccc…"
    assert environment().from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    drawn = str(qr_svg("2@ref,<key>"))
    assert drawn.startswith("<svg")
    assert "style=" not in drawn
    assert "2@ref" not in drawn


def test_a_form_becomes_a_message_with_the_lines_that_were_typed() -> None:
    from starlette.datastructures import FormData  # noqa: PLC0415

    key = "browser-" + "0" * 32
    message = message_of(FormData({"device": " shop-1 ", "to": "+60 12", "text": "a\r\nb ", "key": key}))
    assert (message.device, message.to, message.text, message.media) == ("shop-1", "+60 12", "a\nb ", None)
    assert message.idempotency_key == key
    forged = message_of(FormData({"device": "d", "to": "1", "text": "x", "key": "somebody-elses"}))
    assert forged.idempotency_key != "somebody-elses"


def test_a_devices_account_is_the_one_of_the_command_line() -> None:
    device = Device(
        id=1, name="shop-1", platform=None, jid=None, lid=None, base_url=None, credentials=None, proxy=None,
        desired_state="running", state="needs_pairing", reason_code="no_jid", reason="No phone is linked.",
        state_since=NOW, next_attempt_at=NOW, held_until=None, held_reason="", pairing_qr=None, pairing_code=None,
        last_online_at=None, created_at=NOW,
    )  # fmt: skip
    lines = {line.about: line for line in account_of(device, 3)}
    assert lines["why"].words == "No phone is linked. (no_jid)"
    assert lines["companion"].words == "none linked"
    assert lines["next attempt"].moment == NOW
    assert lines["waiting"].words == "3 messages"
    assert lines["you can"].words == "Link one: run.py device pair shop-1"


# --- the end of the log ----------------------------------------------------------------------------------


def write(path: Path, *numbers: int) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"event": "x" * 50, "number": number}) + "\n" for number in numbers)


def numbers_of(records: list[dict[str, int]]) -> list[int]:
    return [record["number"] for record in records]


def test_the_log_is_read_from_its_end_and_followed_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    assert tail.latest(3) == []
    write(path, *range(20_000))
    assert path.stat().st_size > 1_000_000
    assert numbers_of(tail.latest(3)) == [19_997, 19_998, 19_999]
    assert tail.more() == []
    write(path, 1, 2)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"number": 3')  # a line that is not whole yet
    assert numbers_of(tail.more()) == [1, 2]
    with path.open("a", encoding="utf-8") as file:
        file.write("}\nno json\n")
    assert numbers_of(tail.more()) == [3]
    os.rename(path, tmp_path / "old")  # noqa: PTH104
    assert tail.more() == []
    write(path, 4)
    assert numbers_of(tail.more()) == [4]
