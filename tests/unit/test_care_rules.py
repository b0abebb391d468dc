"""May a lane send now, or must it wait, until when and why: the pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.care import Rules, decide, opts_out
from commands.care import care_lines, care_report
from commands.moments import read_moment
from commands.numbers_file import read_numbers
from config.errors import ConfigurationInvalid, Refused
from config.home import Home
from config.quiet_hours import QuietHours
from config.settings import Settings, load_settings
from storage.care import Lane, Limits, Sends, Wait

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)


def made(**values: Any) -> Settings:
    return Settings(**values)


OFF = Rules.of(made())
NIGHT = QuietHours.parse("22:00-07:00", "UTC")


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def asked(
    rules: Rules, sends: Sends | None = None, *, priority: int = 0, young_since: datetime = LONG_AGO
) -> Wait | None:
    return decide(NOW, priority, young_since, sends or Sends(), rules)


def code(wait: Wait | None) -> str | None:
    return wait.code if wait is not None else None


BUSY = Sends(ago(seconds=1), 7, in_hour=10_000, hour_oldest=ago(minutes=59), in_day=90_000, day_oldest=ago(hours=23))


def test_by_default_nothing_is_limited() -> None:
    assert not OFF.everywhere
    assert asked(OFF, BUSY, young_since=NOW) is None
    assert OFF.window_seconds(Lane(NOW, 0, Limits(), NOW)) == 0


def test_a_gap_runs_from_the_end_of_the_last_send() -> None:
    rules = Rules(gap_seconds=30)
    assert asked(rules) is None
    wait = asked(rules, Sends(ago(seconds=10), 1))
    assert wait is not None
    assert (wait.code, wait.until) == ("gap", NOW + timedelta(seconds=20))
    assert asked(rules, Sends(ago(seconds=30), 1)) is None


@given(some.integers(1, 10**12))
def test_jitter_only_lengthens_a_gap_and_stays_the_same_for_the_same_send(attempt: int) -> None:
    rules = Rules(gap_seconds=10, jitter_seconds=5)
    wait = asked(rules, Sends(NOW, attempt))
    assert wait is not None
    assert NOW + timedelta(seconds=10) <= wait.until <= NOW + timedelta(seconds=15)
    assert asked(rules, Sends(NOW, attempt)) == wait


def test_jitter_differs_from_send_to_send() -> None:
    rules = Rules(jitter_seconds=5)
    assert len({getattr(asked(rules, Sends(NOW, attempt)), "until", None) for attempt in range(1, 20)}) == 19


@pytest.mark.parametrize(
    ("rules", "sends", "expected", "until"),
    [
        (Rules(per_hour=3), Sends(in_hour=2, hour_oldest=ago(minutes=50)), None, None),
        (Rules(per_hour=3), Sends(in_hour=3, hour_oldest=ago(minutes=50)), "hourly_cap", timedelta(minutes=10)),
        (Rules(per_day=9), Sends(in_day=8, day_oldest=ago(hours=20)), None, None),
        (Rules(per_day=9), Sends(in_day=12, day_oldest=ago(hours=20)), "daily_cap", timedelta(hours=4)),
        # Of several reasons, the one that lasts longest is told.
        (
            Rules(gap_seconds=5, per_hour=3, per_day=9),
            Sends(NOW, 1, 3, ago(minutes=50), 9, ago(hours=20)),
            "daily_cap",
            timedelta(hours=4),
        ),
    ],
)
def test_caps_open_again_when_the_oldest_send_is_past(
    rules: Rules, sends: Sends, expected: str | None, until: timedelta | None
) -> None:
    wait = asked(rules, sends)
    assert code(wait) == expected
    if wait is not None and until is not None:
        assert wait.until == NOW + until
        assert wait.reason


@pytest.mark.parametrize(
    ("days_old", "per_day", "cap", "by"),
    [
        (0.0, 0, 20, "warm_up"),
        (0.99, 0, 20, "warm_up"),
        (1.0, 0, 40, "warm_up"),
        (6.5, 0, 140, "warm_up"),
        (7.0, 0, 0, ""),
        (0.0, 10, 10, "daily_cap"),
        (2.0, 50, 50, "daily_cap"),
        (1.0, 50, 40, "warm_up"),
        (9.0, 50, 50, "daily_cap"),
        (-1.0, 0, 20, "warm_up"),  # the clock went back
    ],
)
def test_a_young_devices_daily_cap_grows_by_the_day(days_old: float, per_day: int, cap: int, by: str) -> None:
    rules = Rules(per_day=per_day, warm_up_days=7, warm_up_messages=20)
    since = ago(days=days_old)
    assert rules.daily_cap(NOW, since)[0] == cap
    if not cap:
        assert asked(rules, BUSY, young_since=since) is None
        return
    assert asked(rules, Sends(in_day=cap - 1, day_oldest=ago(hours=1)), young_since=since) is None
    assert code(asked(rules, Sends(in_day=cap, day_oldest=ago(hours=1)), young_since=since)) == by


def test_in_quiet_hours_only_urgent_messages_go() -> None:
    rules = Rules(quiet_hours=NIGHT, urgent_priority=10)
    wait = asked(rules, priority=9)
    assert wait is not None
    assert (wait.code, wait.until, wait.below) == ("quiet_hours", NOW.replace(hour=7), 10)
    assert "22:00-07:00 (UTC)" in wait.reason
    assert asked(rules, priority=10) is None


def test_an_urgent_message_still_keeps_the_pace() -> None:
    rules = Rules(gap_seconds=30, quiet_hours=NIGHT)
    wait = asked(rules, Sends(NOW, 1), priority=50)
    assert wait is not None
    assert (wait.code, wait.below) == ("gap", None)


def test_a_devices_own_limits_come_before_the_settings_and_zero_means_none() -> None:
    rules = Rules(gap_seconds=5, jitter_seconds=1, per_hour=10, per_day=100, warm_up_days=3, warm_up_messages=20)
    assert rules.with_limits(Limits()) == rules
    own = rules.with_limits(Limits(gap_seconds=0, per_day=7))
    assert (own.gap_seconds, own.jitter_seconds, own.per_hour, own.per_day) == (0, 1, 10, 7)
    assert own.warm_up_days == 3


@pytest.mark.parametrize(
    ("rules", "least"),
    [
        (Rules(gap_seconds=7), 7),
        (Rules(per_hour=1), 3600),
        (Rules(per_day=1), 86_400),
        (Rules(warm_up_days=1, warm_up_messages=1), 86_400),
        (Rules(quiet_hours=NIGHT), 0),
    ],
)
def test_sends_are_counted_as_far_back_as_the_rules_need(rules: Rules, least: float) -> None:
    assert rules.everywhere
    window = rules.window_seconds(Lane(NOW, 0, Limits(), NOW))
    assert window >= least
    assert bool(window) == bool(least)


@pytest.mark.parametrize("text", ["STOP", "stop", " Stop \n", "berhenti", "Unsubscribe"])
def test_a_word_that_is_the_whole_text_opts_out(text: str) -> None:
    assert opts_out(text, made().opt_out_words)


@pytest.mark.parametrize("text", ["", "please stop", "STOP!", "stop stop", "nonstop", "S T O P"])
def test_any_other_text_does_not(text: str) -> None:
    assert not opts_out(text, made().opt_out_words)


def test_without_words_nobody_opts_out_by_word() -> None:
    assert not opts_out("STOP", ())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("send_gap_seconds", "-1"),
        ("send_gap_seconds", '"nan"'),
        ("sends_per_day", "1.5"),
        ("quiet_hours", '"late"'),
        ("quiet_hours_time_zone", '"Asia/Nowhere"'),
        ("opt_out_words", '["STOP", " "]'),
        ("opt_out_words", '"STOP"'),
        ("check_recipients", '"perhaps"'),
        ("in_doubt_patience_seconds", "-5"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, setting: str, value: str) -> None:
    home = Home(tmp_path)
    home.configuration.write_text(f"{setting} = {value}\n", encoding="utf-8")
    with pytest.raises(ConfigurationInvalid, match=setting):
        load_settings(home)


def test_a_list_in_the_environment_that_is_no_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAMANDER_OPT_OUT_WORDS", "STOP,HALT")
    with pytest.raises(ConfigurationInvalid, match="opt_out_words"):
        load_settings(Home(tmp_path))
    monkeypatch.setenv("SALAMANDER_OPT_OUT_WORDS", '["HALT"]')
    assert load_settings(Home(tmp_path)).opt_out_words == ("HALT",)


def test_status_tells_what_is_on() -> None:
    nothing = {"opted_out": 0, "devices_with_limits": 0}
    off = dict(care_lines(care_report(made(), nothing)))
    assert (off["pacing"], off["warm-up"], off["quiet hours"]) == ("off", "off", "off")
    settings = made(
        send_gap_seconds=5,
        sends_per_day=200,
        warm_up_days=7,
        quiet_hours="22:00-07:00",
        quiet_hours_time_zone="Asia/Jakarta",
    )
    on = dict(care_lines(care_report(settings, {"opted_out": 3, "devices_with_limits": 2})))
    assert on["pacing"] == "5 s between sends, 200 a day; 2 devices have limits of their own"
    assert on["warm-up"].startswith("7 days")
    assert on["quiet hours"].startswith("22:00-07:00 (Asia/Jakarta)")
    assert on["opted out"].startswith("3 numbers")


@pytest.mark.parametrize(
    "text",
    [
        "60123456789\n+62 812-3456-7890\n",
        "number\n60123456789\n6281234567890\n",
        "\ufeffname,Phone\nAmy,60123456789\nBudi,+6281234567890\n\n",
        '"60123456789","as she asked, by mail"\n"6281234567890",\n',
    ],
)
def test_numbers_are_read_with_and_without_a_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text(text, encoding="utf-8")
    assert [line.number for line in read_numbers(path, "")] == ["60123456789", "6281234567890"]


def test_a_line_without_a_number_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("number\n60123456789\n12\n120363012345678901@g.us\n", encoding="utf-8")
    good, short, group = read_numbers(path, "")
    assert good.number == "60123456789"
    assert (short.line, short.number, group.line, group.number) == (3, None, 4, None)
    assert short.problem
    assert group.problem


@pytest.mark.parametrize("content", [b"", b"\n\n", b"name,town\nAmy,Ipoh\n", b"\xff\xfe", b'"601234'])
def test_a_file_without_numbers_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "numbers.csv"
    path.write_bytes(content)
    with pytest.raises(Refused) as refusal:
        read_numbers(path, "")
    assert refusal.value.code == "bad_csv"


def test_a_moment_needs_a_time_zone() -> None:
    assert read_moment("--at", None) is None
    assert read_moment("--at", "2030-01-31T09:00+07:00") == datetime(2030, 1, 31, 2, 0, tzinfo=UTC)
    assert read_moment("--at", "2030-01-31T09:00:00Z") == datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    for text in ("2030-01-31T09:00", "2030-01-31", "tomorrow", ""):
        with pytest.raises(Refused) as refusal:
            read_moment("--at", text)
        assert refusal.value.code == "bad_time"
