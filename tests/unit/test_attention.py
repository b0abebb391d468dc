"""Quarantine and alerts: who gets a shard of its own, and what is told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from storage.devices import Device
from supervisors.attention import Alerts, Quarantine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = Device(
    id=1,
    name="shop",
    platform=None,
    jid="60123456789:1@s.whatsapp.net",
    lid=None,
    base_url=None,
    credentials=None,
    proxy=None,
    desired_state="running",
    state="online",
    reason_code="connected",
    reason="Connected.",
    state_since=NOW,
    next_attempt_at=None,
    held_until=None,
    held_reason="",
    pairing_qr=None,
    pairing_code=None,
    last_online_at=NOW,
    created_at=NOW,
)


def test_the_device_inside_at_three_crashes_is_quarantined_and_no_other() -> None:
    quarantine = Quarantine()
    assert quarantine.crashed({7}, 0.0) == []
    assert quarantine.crashed({7, 8}, 10.0) == []
    assert quarantine.crashed({7}, 20.0) == [7]
    assert quarantine.devices == {7}
    assert quarantine.crashed({7}, 30.0) == [], "it is told once"


def test_crashes_far_apart_or_with_everybody_inside_accuse_nobody() -> None:
    quarantine = Quarantine()
    for moment in (0.0, 700.0, 1400.0, 2100.0):
        assert quarantine.crashed({7}, moment) == []
    for moment in (3000.0, 3001.0, 3002.0, 3003.0):
        assert quarantine.crashed({1, 2, 3, 4}, moment) == []


def test_an_alert_is_told_once_for_each_time_it_happens() -> None:
    alerts = Alerts()
    conflict = replace(DEVICE, state="conflict", reason_code="replaced", reason="Another program connected.")
    assert alerts.about([DEVICE]) == []
    [sentence] = alerts.about([conflict])
    assert "shop" in sentence
    assert "Stop the other program" in sentence
    assert alerts.about([conflict]) == []
    again = replace(conflict, state_since=datetime(2026, 1, 2, tzinfo=UTC))
    assert len(alerts.about([again])) == 1


def test_an_outdated_library_is_told_once_for_the_fleet() -> None:
    alerts = Alerts()
    outdated = [
        replace(DEVICE, id=number, name=f"shop-{number}", state="outdated", reason_code="outdated", reason="Too old.")
        for number in range(5)
    ]
    [sentence] = alerts.about(outdated)
    assert sentence.startswith("The whole fleet")
    assert "Upgrade neonize" in sentence
