"""Asking the router from several threads, one of which lets go of what the others use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from actors import router_connection
from actors.router_connection import RouterConnection
from config.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Return where questions went, by the system that was asked through and the router that it knew."""
    asked: list[tuple[Any, Any]] = []

    class Endpoint:
        def __init__(self, system: Any) -> None:
            self.system = system

        def ask(self, router: Any, message: Any, *_: Any) -> Any:
            asked.append((self.system, router))
            return message

        def close(self) -> None: ...

    daemon = SimpleNamespace(pid=1, port=2, bind_address="127.0.0.1")
    monkeypatch.setattr(router_connection, "running_daemon", lambda _: daemon)
    monkeypatch.setattr(router_connection, "connect_actor_system", lambda *_: "system")
    monkeypatch.setattr(router_connection, "disconnect", lambda _: None)
    monkeypatch.setattr(router_connection, "lookup", lambda *_: "router")
    monkeypatch.setattr(router_connection, "Endpoint", Endpoint)
    return asked


def test_a_question_under_way_bears_that_another_thread_lets_go_of_the_router(
    asked: list[tuple[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = RouterConnection(Home(tmp_path))
    own_endpoint = RouterConnection._endpoint

    def meanwhile(self: RouterConnection, *arguments: Any) -> Any:
        self.close()  # another thread found that the daemon is another one
        return own_endpoint(self, *arguments)

    monkeypatch.setattr(RouterConnection, "_endpoint", meanwhile)
    message = SimpleNamespace(request="one")
    assert connection.ask(message, 1.0) is message
    assert asked == [("system", "router")]
