"""Traces end to end: a caller's traceparent, the daemon, a simulated phone, and a collector that comes and goes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api import Api, api_of
from tests.support.collector import WAITING, Collector, Taken
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PHONE, FRIEND = "60120000001", "60198887777"
WORDS = "words that nobody else may read"
#: What a message that was delivered is told by, below its request.
WAY = [
    ("router accept", None),
    ("outbox wait", "sending"),
    ("send attempt", "sent"),
    ("delivery", "delivered"),
]
_TELLS_WHO_LOADS = """
import sys
class Teller:
    def find_spec(self, name, path=None, target=None):
        if name == "opentelemetry.proto.trace":
            with open("/proc/self/comm") as own, open({names!r}, "a") as names:
                names.write(own.read())
sys.meta_path.insert(0, Teller())
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def loaded_by(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The names of the daemon's processes that load what only an export needs, as each process tells by itself."""
    folder = tmp_path_factory.mktemp("customized")
    names = folder / "loaded-by"
    names.touch()
    (folder / "sitecustomize.py").write_text(_TELLS_WHO_LOADS.format(names=str(names)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield names


@pytest.fixture(scope="module")
def daemon(collector: Collector, loaded_by: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"max_shards": 1, "traces_endpoint": collector.url}
    with Daemon(tmp_path_factory.mktemp("home") / "home", settings) as running:
        yield running


@pytest.fixture(scope="module")
def device(daemon: Daemon) -> str:
    daemon.simulator.add_phone(FRIEND)
    daemon.add_paired("shop-1", PHONE)
    return "shop-1"


@pytest.fixture(scope="module")
def api(daemon: Daemon, device: str) -> Api:
    return api_of(daemon, "send")


@pytest.fixture(autouse=True)
def well(collector: Collector) -> Iterator[None]:
    yield
    collector.behave = 200


def caller() -> tuple[str, str, dict[str, str]]:
    """Return a caller's trace and span, and the header that says so."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01"}


def message(device: str, **fields: Any) -> dict[str, Any]:
    return {"device": device, "to": f"+{FRIEND}", "text": WORDS, **fields}


def whole(collector: Collector, trace: str, spans: int) -> list[Taken]:
    """Return a trace once it has so many spans, in the order in which they ended."""
    eventually(lambda: len(collector.of_trace(trace)) >= spans, 60, f"{spans} spans")
    found = collector.of_trace(trace)
    assert len(found) == spans
    return sorted(found, key=lambda each: each.ended_ns)


def way_of(spans: list[Taken], message_id: int) -> list[tuple[str, Any]]:
    """Return how a message went; a phone may tell at once that it was delivered and read."""
    told = [(each.name, each.outcome) for each in spans if each.message == message_id]
    return [(name, "delivered" if outcome == "read" else outcome) for name, outcome in told]


def test_a_callers_trace_goes_on_to_the_delivery(daemon: Daemon, device: str, api: Api, collector: Collector) -> None:
    trace, span, headers = caller()
    accepted = api.ask("POST", "/v1/messages", 202, message(device), headers=headers)
    spans = whole(collector, trace, 5)
    by_name = {each.name: each for each in spans}
    request, acceptance = by_name["POST /v1/messages"], by_name["router accept"]
    assert way_of(spans, accepted["id"]) == WAY
    assert request.parent == span
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": 202,
    }
    assert acceptance.parent == request.id
    assert {each.parent for each in spans if each not in (request, acceptance)} == {acceptance.id}
    attempt = by_name["send attempt"].attributes
    assert (attempt["salamander.device"], attempt["salamander.platform"], attempt["salamander.attempt"]) == (
        device,
        "whatsapp",
        1,
    )
    assert request.began_ns <= acceptance.began_ns <= acceptance.ended_ns <= by_name["send attempt"].began_ns
    for secret in (WORDS.encode(), FRIEND.encode(), PHONE.encode(), api.key.encode()):
        assert not any(secret in body for body in collector.bodies)


def test_messages_of_a_batch_keep_their_link(device: str, api: Api, collector: Collector) -> None:
    trace, span, headers = caller()
    batch = {"messages": [message(device), message("nobody"), message(device)]}
    answer = api.ask("POST", "/v1/messages/batch", 200, batch, headers=headers)
    first, refused, second = answer["results"]
    assert refused["code"] == "unknown_device"
    spans = whole(collector, trace, 9)
    request = next(each for each in spans if each.name == "POST /v1/messages/batch")
    assert request.parent == span
    for each in (first, second):
        assert way_of(spans, each["id"]) == WAY
    assert {each.parent for each in spans if each.name == "router accept"} == {request.id}


def test_a_refused_request_is_told_and_an_unsampled_one_is_not(device: str, api: Api, collector: Collector) -> None:
    hidden, _, headers = caller()
    accepted = api.ask(
        "POST", "/v1/messages", 202, message(device), headers={"traceparent": f"00-{hidden}-{'1' * 16}-00"}
    )
    trace, _, headers = caller()
    assert api.problem("POST", "/v1/messages", 404, message("nobody"), headers=headers) == "unknown_device"
    (span,) = whole(collector, trace, 1)
    assert span.attributes["http.response.status_code"] == 404
    assert not collector.of_trace(hidden)
    assert not collector.of_message(accepted["id"])


def test_a_trace_begins_here_when_nobody_brought_one(
    daemon: Daemon, device: str, api: Api, collector: Collector
) -> None:
    over_http = api.ask("POST", "/v1/messages", 202, message(device), headers={"traceparent": "nonsense"})["id"]
    with daemon.fleet() as fleet:
        from_python = fleet.send(device, FRIEND, WORDS)
        trace, span, headers = caller()
        in_a_trace = fleet.send(device, FRIEND, WORDS, traceparent=headers["traceparent"])
    sent = (over_http, from_python, in_a_trace)
    eventually(lambda: all(len(collector.of_message(each)) == len(WAY) for each in sent), 60, "their spans")
    for each in sent:
        spans = sorted(collector.of_message(each), key=lambda span: span.ended_ns)
        assert way_of(spans, each) == WAY
        (of_trace,) = {one.trace for one in spans}
        parent = spans[0].parent
        if each == over_http:
            request = next(one for one in collector.of_trace(of_trace) if one.name == "POST /v1/messages")
            assert (parent, request.parent) == (request.id, "")
        elif each == from_python:
            assert parent == ""
        else:
            assert (of_trace, parent) == (trace, span)


def test_a_collector_that_is_down_delays_nobody_and_a_killed_gateway_loses_nothing(
    daemon: Daemon, device: str, api: Api, collector: Collector
) -> None:
    collector.behave = 503
    asked = collector.asked
    traces = {}
    for _ in range(3):
        trace, _, headers = caller()
        traces[trace] = api.ask("POST", "/v1/messages", 202, message(device), headers=headers)["id"]
    with daemon.fleet() as fleet:
        for message_id in traces.values():
            daemon.await_message(fleet, message_id, "delivered read", 60)
    eventually(lambda: collector.asked > asked + 1, 60, "the collector to be asked again")
    assert len(daemon.log_lines("Traces wait")) == 1, "it is told once"
    collector.behave = "lost"  # from now on it takes spans, and nobody learns of it
    eventually(lambda: all(collector.of_trace(trace) for trace in traces), 90, "the spans to be taken")
    before = {each.id: (each.name, each.parent) for trace in traces for each in collector.of_trace(trace)}
    daemon.kill("gateway")
    collector.behave = 200
    eventually(lambda: not daemon.rows(WAITING), 90, "every row to be exported")
    for trace, message_id in traces.items():
        spans = whole(collector, trace, 5)
        assert way_of(spans, message_id) == WAY
        for each in spans:
            assert before.get(each.id, (each.name, each.parent)) == (each.name, each.parent)
    assert before.keys() <= {each.id for trace in traces for each in collector.of_trace(trace)}


def test_only_the_gateway_loads_opentelemetry_and_only_when_it_exports(
    daemon: Daemon, device: str, api: Api, loaded_by: Path
) -> None:
    assert set(loaded_by.read_text().split()) == {"gateway"}
    loaded_by.write_text("")
    daemon.stop()
    daemon.home.configuration.write_text("max_shards = 1\n", encoding="utf-8")
    daemon.start()
    with daemon.fleet() as fleet:
        daemon.await_state(fleet, device, "online", 60)
        _, _, headers = caller()
        accepted = api_of(daemon, "send").ask("POST", "/v1/messages", 202, message(device), headers=headers)
        daemon.await_message(fleet, accepted["id"], "delivered read", 60)
    assert loaded_by.read_text() == ""
    assert daemon.rows(WAITING) == []
