"""The metrics' names and labels, and the files that are made of them: alert rules and the dashboard."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from gateway.metrics.families import of_processes, of_reading
from gateway.metrics.processes import Use
from storage.metrics import BOUNDS, Reading

_DEPLOY = Path(__file__).parents[2] / "deploy"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def reading(**changes: Any) -> Reading:
    values: dict[str, Any] = {
        "totals": {},
        "devices": [],
        "outbox": [],
        "breakers": [],
        "connections": [],
        "connection_limit": 500,
        "deliveries": {},
    }
    return Reading(**{**values, **changes})


def families(found: Reading | None) -> dict[str, Metric]:
    return {family.name: family for family in of_reading(found, NOW)}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}


def test_times_are_cumulated_up_to_infinity() -> None:
    totals = {
        ("seconds_to_sent", "wablas", "0"): 2.0,
        ("seconds_to_sent", "wablas", "4"): 3.0,
        ("seconds_to_sent", "wablas", str(len(BOUNDS))): 1.0,
        ("seconds_to_sent_sum", "wablas", ""): 99.5,
    }
    found = values(families(reading(totals=totals))["salamander_message_seconds_to_sent"])
    name = "salamander_message_seconds_to_sent"
    assert found[f"{name}_bucket", "wablas", "0.05"] == 2.0
    assert found[f"{name}_bucket", "wablas", "0.5"] == 2.0
    assert found[f"{name}_bucket", "wablas", "1.0"] == 5.0
    assert found[f"{name}_bucket", "wablas", "86400.0"] == 5.0
    assert found[f"{name}_bucket", "wablas", "+Inf"] == 6.0
    assert found[f"{name}_count", "wablas"] == 6.0
    assert found[f"{name}_sum", "wablas"] == 99.5


def test_nothing_unfinished_is_told_as_nothing() -> None:
    found = families(reading(outbox=[{"state": "queued", "messages": 7, "oldest": NOW - timedelta(seconds=90)}]))
    counts, ages = found["salamander_outbox_messages"], found["salamander_outbox_oldest_seconds"]
    assert sorted(values(counts).values()) == [0.0, 0.0, 7.0]
    assert values(ages)["salamander_outbox_oldest_seconds", "queued"] == 90.0
    assert values(ages)["salamander_outbox_oldest_seconds", "in_doubt"] == 0.0


def test_without_postgres_that_much_is_told() -> None:
    assert {name: values(family) for name, family in families(None).items()} == {
        "salamander_database_up": {("salamander_database_up",): 0.0}
    }


def test_processes_are_told_by_name() -> None:
    memory, descriptors, seconds = of_processes([Use("shard-1", 1000, 12, 3.5)])
    assert values(memory) == {("salamander_process_memory_bytes", "shard-1"): 1000}
    assert values(descriptors) == {("salamander_process_descriptors", "shard-1"): 12}
    assert values(seconds) == {("salamander_process_cpu_seconds_total", "shard-1"): 3.5}


@pytest.mark.parametrize("rule", yaml.safe_load((_DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"])
def test_every_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Salamander")
    assert rule["labels"]["severity"] in {"warning", "critical"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert summary.endswith((".", ")."))
    assert len(description.split()) >= 12
    assert description.rstrip().endswith((".", ")."))


def test_the_dashboard_s_panels_have_a_place_and_a_title_of_their_own() -> None:
    board = json.loads((_DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["title"] for panel in board["panels"]}) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
