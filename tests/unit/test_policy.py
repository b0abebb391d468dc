"""The table of causes, and the arithmetic of waiting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.whatsapp import device
from supervisors import policy
from supervisors.policy import (
    BAN_SECONDS,
    CAN_HEAL,
    HOLD_SECONDS,
    POLICIES,
    UNKNOWN_CAUSE,
    Action,
    Backoff,
    Policy,
    RestartIntensity,
    Trouble,
    delay_before,
)

ACTORS = Path(device.__file__).parent
#: The states of a WhatsApp device, as they are documented.
STATES = {
    "needs_pairing",
    "pairing",
    "connecting",
    "online",
    "reconnecting",
    "refreshing",
    "logged_out",
    "conflict",
    "banned",
    "outdated",
    "paused",
}
HEALING = {Action.WAIT_FOR_LIBRARY, Action.PROBE, Action.REFRESH}
NEEDS_A_PERSON_OR_TIME = {Action.STOP, Action.HOLD, Action.SLEEP}

chances = st.floats(0.0, 1.0, exclude_max=True)
backoffs = st.tuples(st.floats(0.001, 100.0), st.floats(1.0, 100.0)).map(
    lambda drawn: Backoff(drawn[0], drawn[0] * drawn[1])
)
attempts = st.integers(1, 10_000)


# --- the table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", POLICIES)
def test_every_cause_has_a_state_words_and_a_next_step(cause: str) -> None:
    rule = POLICIES[cause]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", cause)
    assert rule.state in STATES
    assert re.fullmatch(r"[A-Z].*\.", rule.words), "a sentence for people"
    assert rule.advice or rule.action is Action.NONE


@pytest.mark.parametrize("cause", POLICIES)
def test_a_send_asks_for_a_healthy_client_only_where_healing_is_allowed(cause: str) -> None:
    rule = POLICIES[cause]
    if rule.action in HEALING:
        assert rule.state in CAN_HEAL
    if rule.action in NEEDS_A_PERSON_OR_TIME:
        assert rule.state not in CAN_HEAL
        assert rule.advice != POLICIES["disconnected"].advice, "it does not heal by itself"


@pytest.mark.parametrize(
    ("cause", "action"),
    [
        ("logged_out", Action.STOP),
        ("store_missing", Action.STOP),
        ("no_jid", Action.STOP),
        ("outdated", Action.STOP),
        ("replaced", Action.HOLD),
        ("banned", Action.SLEEP),
        ("keepalive_timeout", Action.PROBE),
        ("disconnected", Action.WAIT_FOR_LIBRARY),
        ("store_unavailable", Action.REFRESH),
        ("shard_died", Action.REFRESH),
    ],
)
def test_the_promised_answers_stand_in_the_table(cause: str, action: Action) -> None:
    assert POLICIES[cause].action is action


def test_what_waits_for_a_person_tells_so_loudly() -> None:
    quiet = {cause for cause, rule in POLICIES.items() if rule.action is Action.STOP and not rule.alert}
    assert quiet == {"paused", "pairing_ended"}, "what the operator did needs no alarm"


def test_the_unknown_cause_is_one_that_heals() -> None:
    assert POLICIES[UNKNOWN_CAUSE].action in HEALING


def test_causes_counted_for_an_outage_are_in_the_table() -> None:
    assert set(policy.OUTAGE_CAUSES) <= set(POLICIES)


def calls_in(*modules: str) -> Iterator[tuple[str, ast.Call]]:
    """Give each call of a plain name or method in these modules, under that name."""
    for module in modules:
        for node in ast.walk(ast.parse((ACTORS / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr, node


def first_text(call: ast.Call) -> str | None:
    value = call.args[0] if call.args else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def test_every_way_in_which_opening_a_client_fails_is_a_cause() -> None:
    modules = ["connection.py", "library.py", "outcomes.py"]
    codes = {text for name, call in calls_in(*modules) if name == "ClientError" and (text := first_text(call))}
    assert len(codes) >= 10, "the codes were found"
    renamed = {device._CAUSE_OF_CLIENT_ERROR.get(code, code) for code in codes}
    assert renamed <= set(POLICIES), renamed - set(POLICIES)


def test_every_trouble_that_a_device_reports_is_a_cause() -> None:
    reporting = {"_trouble", "_set_deadline"}
    causes = {text for name, call in calls_in("device.py") if name in reporting and (text := first_text(call))}
    assert {"logged_out", "replaced", "banned", "reconnect_timeout"} <= causes, "the causes were found"
    assert causes <= set(POLICIES), causes - set(POLICIES)


# --- waiting ---------------------------------------------------------------------------------------------


@given(backoffs, attempts, chances)
def test_no_wait_is_negative_or_longer_than_the_longest(backoff: Backoff, attempt: int, chance: float) -> None:
    assert 0.0 <= backoff.seconds(attempt, chance) <= backoff.longest


@given(backoffs, attempts, chances)
def test_waits_grow_with_each_attempt(backoff: Backoff, attempt: int, chance: float) -> None:
    assert backoff.seconds(attempt, chance) <= backoff.seconds(attempt + 1, chance)


@given(backoffs, chances)
def test_the_first_attempt_comes_almost_at_once(backoff: Backoff, chance: float) -> None:
    assert backoff.seconds(1, chance) <= 0.1 * backoff.first


@given(backoffs, st.integers(2, 10_000))
def test_a_fleet_that_fell_together_comes_back_spread_out(backoff: Backoff, attempt: int) -> None:
    earliest, latest = backoff.seconds(attempt, 0.0), backoff.seconds(attempt, 0.999)
    assert latest >= 1.9 * earliest > 0


@given(st.lists(st.floats(0.0, 1000.0), max_size=40), st.integers(0, 5), st.floats(0.1, 100.0))
def test_intensity_counts_what_lies_within_its_window(steps: list[float], limit: int, window: float) -> None:
    intensity = RestartIntensity(limit, window)
    moments: list[float] = []
    now = 0.0
    for step in steps:
        now += step
        moments.append(now)
        assert intensity.exceeded(now) == (sum(now - each < window for each in moments) > limit)


def test_attempts_count_up_until_a_stable_time_online() -> None:
    trouble = Trouble()
    assert [trouble.next_attempt(0.0, 300.0) for _ in range(3)] == [1, 2, 3]
    trouble.came_online(10.0)
    assert trouble.next_attempt(309.9, 300.0) == 4
    trouble.holds = 2
    trouble.came_online(400.0)
    assert trouble.next_attempt(700.0, 300.0) == 1
    assert trouble.holds == 0
    assert trouble.next_attempt(2000.0, 300.0) == 2, "a stable time counts once"


BACKOFF = Backoff(1.0, 300.0)


def rule_for(action: Action) -> Policy:
    return Policy("some_state", "Some words.", action)


def test_a_replaced_session_is_left_alone_longer_each_time() -> None:
    trouble = Trouble()
    waits = [delay_before(rule_for(Action.HOLD), trouble, 1, BACKOFF, None) for _ in range(5)]
    for wait, least in zip(waits, [*HOLD_SECONDS, HOLD_SECONDS[-1], HOLD_SECONDS[-1]], strict=True):
        assert least <= wait <= 1.1 * least


@pytest.mark.parametrize(("told", "least"), [(120.0, 120.0), (0.0, 1.0), (-5.0, 1.0), (None, BAN_SECONDS)])
def test_a_ban_is_slept_through(told: float | None, least: float) -> None:
    assert least <= delay_before(rule_for(Action.SLEEP), Trouble(), 1, BACKOFF, told) <= least + 10.0


@pytest.mark.parametrize("action", [Action.NONE, Action.STOP, Action.WAIT_FOR_LIBRARY, Action.PROBE])
def test_actions_without_a_timer_wait_for_nothing(action: Action) -> None:
    assert delay_before(rule_for(action), Trouble(), 5, BACKOFF, None) == 0.0
