"""What an operator is told of a message: why it waits, what is known of a doubt, and what can be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commands.messages import explanation
from storage.devices import Device

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=2)


def device(**fields: Any) -> Device:
    values: dict[str, Any] = dict.fromkeys(Device.__dataclass_fields__) | {
        "id": 1,
        "name": "shop-1",
        "desired_state": "running",
        "state": "online",
        "reason_code": "connected",
        "reason": "Connected.",
        "state_since": NOW,
        "held_reason": "",
        "created_at": NOW,
        "held_code": "",
    }
    return Device(**values | fields)


def told(state: str, of: Device | None, **fields: Any) -> str:
    row: dict[str, Any] = {
        "id": 17,
        "state": state,
        "recipient": "60123456789",
        "platform": None,
        "external_id": None,
        "priority": 0,
        "not_before": NOW,
    }
    return explanation(row | fields, of, NOW)


@pytest.mark.parametrize(
    ("of", "fields", "words"),
    [
        (device(), {}, ["its turn"]),
        (device(), {"not_before": LATER}, ["its time", "in 2 d"]),
        (device(held_until=LATER, held_reason="It is quiet until 07:00."), {}, ["quiet until 07:00"]),
        (device(held_until=LATER, held_reason="Quiet.", held_below=10), {"priority": 10}, ["its turn"]),
        (device(held_until=LATER, held_reason="Quiet.", held_below=10), {"priority": 9}, ["Quiet."]),
        (
            device(state="banned", reason_code="banned", reason="Refused for a time.", next_attempt_at=LATER),
            {},
            ["shop-1, which is banned: Refused for a time.", "Next attempt in 2 d.", "Wait; send less"],
        ),
        (device(state="logged_out", reason_code="logged_out"), {}, ["run.py device pair shop-1"]),
        (None, {}, ["removed"]),
    ],
)
def test_a_queued_message_says_what_it_waits_for(of: Device | None, fields: dict[str, Any], words: list[str]) -> None:
    text = told("queued", of, **fields)
    assert all(each in text for each in words), text


@pytest.mark.parametrize(
    ("of", "fields", "words", "without"),
    [
        (device(), {"external_id": "3EB0A1"}, ["3EB0A1", "receipt", "--sent", "--resend", "60123456789"], []),
        (device(), {}, ["no receipt can settle it", "--sent", "--resend"], []),
        (device(), {"platform": "wablas"}, ["wablas", "look-up"], ["receipt"]),
        (None, {"external_id": "3EB0A1"}, ["--sent"], ["--resend"]),
    ],
)
def test_a_doubt_says_what_is_known_and_how_to_settle_it(
    of: Device | None, fields: dict[str, Any], words: list[str], without: list[str]
) -> None:
    text = told("in_doubt", of, **fields)
    assert all(each in text for each in words), text
    assert not any(each in text for each in without), text


@pytest.mark.parametrize("state", ["sent", "delivered", "read", "failed", "expired", "cancelled"])
def test_an_end_needs_no_explanation(state: str) -> None:
    assert told(state, device()) == ""
