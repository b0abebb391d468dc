"""The judge of the webhooks' benchmark must itself be right, its weather its seed's, and its receiver fail as told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import requests
from standardwebhooks.webhooks import Webhook

from actors.endpoint_client import new_secret
from benchmarks.support import webhook_report
from benchmarks.support.webhook_judge import Due, Taken, judge
from benchmarks.support.webhook_receiver import FailingReceiver
from benchmarks.support.webhook_weather import SHARES, Dice, forecast

DUE = [Due(1, "a", 1, 10.0), Due(2, "b", 1, 11.0), Due(3, "c", 2, 12.0)]


def taken(*ids: str) -> list[Taken]:
    return [Taken(each, each.encode(), 20.0 + place) for place, each in enumerate(ids)]


def test_what_came_once_and_in_order_is_good() -> None:
    found = judge(DUE, taken("a", "c", "b"))
    nothing = ("lost", "duplicates", "unrecognised_duplicates", "unexpected", "out_of_order")
    assert not any(found[name] for name in nothing)
    assert (found["due"], found["received"], found["distinct_ids"]) == (3, 3, 3)
    assert (found["delay_p50_seconds"], found["delay_longest_seconds"]) == (10.0, 11.0)


def test_what_did_not_come_is_lost_and_what_was_not_due_unexpected() -> None:
    found = judge(DUE, taken("a", "x"))
    assert (found["lost"], found["unexpected"]) == (2, 1)


def test_a_duplicate_is_known_by_its_id_and_one_under_another_id_is_not() -> None:
    assert judge(DUE, taken("a", "a", "b"))["duplicates"] == 1
    disguised = [*taken("a"), Taken("b", b"a", 21.0)]
    assert judge(DUE, disguised)["unrecognised_duplicates"] == 1
    assert judge(DUE, taken("a", "a", "b"))["unrecognised_duplicates"] == 0


def test_order_counts_within_a_lane_and_among_first_arrivals() -> None:
    assert judge(DUE, taken("b", "a"))["out_of_order"] == 1
    assert judge(DUE, taken("c", "a", "b", "a"))["out_of_order"] == 0


def test_the_weather_is_its_seeds_alone_and_an_hour_has_outages_of_minutes() -> None:
    hour = forecast(7, 3600)
    assert hour == forecast(7, 3600) != forecast(8, 3600)
    assert len(hour.outages) == 6
    assert len(hour.kills) == 12
    assert all(60 <= ended - began <= 240 for began, ended in hour.outages)
    assert all(began >= 0 and ended <= 3600 for began, ended in hour.outages)
    assert hour.is_down(hour.outages[0][0])
    assert not hour.is_down(hour.outages[0][1])


def test_requests_fare_as_often_well_or_badly_as_they_should() -> None:
    dice = Dice(3)
    thrown = [dice.throw() for _ in range(10_000)]
    for name, share in SHARES.items():
        assert thrown.count(name) / len(thrown) == pytest.approx(share, abs=0.01)
    assert set(thrown) == {"well", *SHARES}


@pytest.fixture
def receiver() -> Iterator[FailingReceiver]:
    made = FailingReceiver(1)
    made.fails = False
    yield made
    made.close()


def post(receiver: FailingReceiver, secret: str) -> int:
    body = json.dumps({"type": "webhook.test"})
    now = datetime.now(UTC)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = Webhook(secret).sign("evt_1", now, body)
    return requests.post(receiver.url, data=body, headers=headers, timeout=10).status_code


def test_the_receiver_takes_what_is_signed_goes_down_and_comes_up_at_its_address(receiver: FailingReceiver) -> None:
    receiver.secret = new_secret()
    assert post(receiver, receiver.secret) == 200
    post(receiver, new_secret())
    assert (len(receiver.taken), receiver.forged) == (1, 1)
    receiver.go_down()
    with pytest.raises(requests.ConnectionError):
        post(receiver, receiver.secret)
    receiver.come_up()
    assert post(receiver, receiver.secret) == 200
    assert [each.webhook_id for each in receiver.taken] == ["evt_1", "evt_1"]


def test_the_report_tells_what_came_and_what_did_not() -> None:
    report = {
        "minutes": 60.0,
        "whatsapp": 6,
        "sent": 2,
        "outages": [240.0, 60.0],
        "requests": {"500": 1200, "well": 3},
        "gateway_kills": 12,
        "dead_letters": 0,
        "most_attempts": 9,
        "told": judge(DUE, taken("a", "b", "c")),
        "plain": judge(DUE, taken("b", "a")),
    }
    assert "for 60 to 240 s, and its requests fared so: 500: 1,200, well: 3" in webhook_report.words(report)
    assert ["never came", "0", "1"] in webhook_report.rows(report)
    assert ["after a later event of their device", "0", "1"] in webhook_report.rows(report)
