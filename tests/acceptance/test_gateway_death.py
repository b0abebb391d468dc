"""The gateway is killed while it works: what it answered is true, what is asked again is done once."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.support.api import Api, api_of, url_of
from tests.support.daemon import Daemon, eventually

DESK = "desk-1"
FRIENDS = [f"6019{number:07d}" for number in range(5)]
MESSAGES = 1000


def posted(api: Api, number: int) -> dict[str, Any] | None:
    """Post one message; None: no answer came."""
    message = {"device": DESK, "to": f"+{FRIENDS[number % 5]}", "text": f"message {number}"}
    try:
        reply = api.client.post("/v1/messages", json=message, headers={"Idempotency-Key": f"death-{number}"})
    except httpx.TransportError:
        return None
    assert reply.status_code in {202, 503, 504}, reply.text
    return reply.json() if reply.status_code == 202 else None


def test_a_gateway_that_is_killed_amid_a_thousand_posts_loses_and_doubles_nothing(daemon: Daemon) -> None:
    daemon.add_platform(DESK, "wablas")
    api = api_of(daemon, "send", "--per-minute", "0")
    url = url_of(daemon)
    answered: dict[int, int] = {}
    third = threading.Event()

    def post(number: int) -> None:
        accepted = posted(api, number)
        if accepted is not None:
            answered[number] = accepted["id"]
        if len(answered) >= MESSAGES // 3:
            third.set()

    with ThreadPoolExecutor(8) as threads:
        posts = [threads.submit(post, number) for number in range(MESSAGES)]
        assert third.wait(60)
        daemon.kill("gateway")
        for each in posts:
            each.result()
    before = dict(answered)
    assert MESSAGES // 3 <= len(before) < MESSAGES
    assert url_of(daemon) == url  # it is up again where it was

    def all_answered() -> bool:
        for number in range(MESSAGES):
            if number not in answered and (accepted := posted(api, number)) is not None:
                answered[number] = accepted["id"]
        return len(answered) == MESSAGES

    eventually(all_answered, 60, "every message to be accepted")
    for number, message_id in before.items():
        if number % 10 == 0:
            assert posted(api, number) == {"id": message_id, "repeated": True}
    assert len(set(answered.values())) == MESSAGES

    def delivered() -> bool:
        with daemon.fleet() as fleet:
            return fleet.message_counts().keys() <= {"sent", "delivered", "read"}

    eventually(delivered, 120, "every message to be sent")
    texts = sorted(each["text"] for each in daemon.simulator.platform_log("wablas"))
    assert texts == sorted(f"message {number}" for number in range(MESSAGES))


def test_a_router_that_is_killed_costs_its_callers_a_moment(daemon: Daemon) -> None:
    api = api_of(daemon, "admin")
    daemon.kill("router")
    message = {"device": DESK, "to": f"+{FRIENDS[0]}", "text": "after the router"}
    accepted = api.ask("POST", "/v1/messages", 202, message)
    assert api.get(f"/v1/messages/{accepted['id']}")["body"] == "after the router"


def test_a_client_that_dawdles_is_hung_up_on(daemon: Daemon) -> None:
    host, _, port = url_of(daemon).removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.settimeout(60)
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")  # and never the end of the headers
        assert idle.recv(1000) == b""
