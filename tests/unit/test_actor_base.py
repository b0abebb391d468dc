"""Which method handles which message."""

from __future__ import annotations

import pytest
from thespian.actors import ActorExitRequest, ChildActorExited, WatchMessage

from actors.base import handler_name


@pytest.mark.parametrize(
    ("message_class", "name"),
    [
        (ChildActorExited, "on_child_actor_exited"),
        (ActorExitRequest, "on_actor_exit_request"),
        (WatchMessage, "on_watch_message"),
        (type("SendMessage", (), {}), "on_send_message"),
        (type("Ping", (), {}), "on_ping"),
        (type("QRCodeShown", (), {}), "on_qr_code_shown"),
        (type("Retry2Times", (), {}), "on_retry2_times"),
        (str, "on_str"),
    ],
)
def test_a_handler_is_named_after_its_message(message_class: type, name: str) -> None:
    assert handler_name(message_class) == name
