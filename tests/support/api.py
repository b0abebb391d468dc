"""The HTTP API as its users see it: a base URL and a key."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MEDIA_TYPE = "application/problem+json"


class Api:
    """One key's way to the API."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )
        weakref.finalize(self, self.client.close)

    def get(self, path: str, **query: Any) -> Any:
        """Return what a GET that must succeed answers."""
        reply = self.client.get(path, params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ask(self, method: str, path: str, status: int, body: Any = None, **options: Any) -> Any:
        """Send a request that must be answered with ``status``; return the answer's JSON, or None."""
        reply = self.client.request(method, path, json=body, **options)
        assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def problem(self, method: str, path: str, status: int, body: Any = None, **options: Any) -> str:
        """Send a request that must be refused with ``status``, as a whole problem; return its code."""
        reply = self.client.request(method, path, json=body, **options)
        return str(problem_of(reply, status)["code"])


def problem_of(reply: httpx.Response, status: int) -> Any:
    """Return a problem, having checked its form."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == MEDIA_TYPE
    told = reply.json()
    assert {"type", "title", "status", "code", "detail", "next_step"} <= set(told)
    assert told["status"] == status
    assert told["detail"]
    return told


def url_of(daemon: Daemon) -> str:
    """Return the gateway's address, once it answers."""
    url = str(daemon.json("status")["gateway"]["url"])

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers, 30, "the gateway to answer")
    return url


def api_of(daemon: Daemon, scope: str, *more: str) -> Api:
    """Return the API with a new key."""
    made = daemon.json("key", "create", "--scope", scope, *more)
    return Api(url_of(daemon), made["key"])


def server_sent_events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Yield the events of a stream, each as its fields; a comment is the field ''."""
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if event:
                yield event
            event = {}
            continue
        name, _, value = line.partition(":")
        event[name] = value.removeprefix(" ")


def data_of(event: dict[str, str]) -> Any:
    """Return what an event of a stream says."""
    return json.loads(event["data"])
