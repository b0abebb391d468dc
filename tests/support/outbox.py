"""Short ways to devices and messages for tests of what is stored."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

from storage import devices, outbox
from storage.database import Connection
from storage.outbox import Accepted, Claim, KeyConflict, NewMessage, NotAccepted, Outbox

_numbers = itertools.count(1)


def new_device(connection: Connection, platform: str | None = None) -> int:
    """Add a device that no other test knows."""
    return devices.add(connection, name=f"device-{next(_numbers)}", platform=platform)


def text(device_id: int, body: str = "hello", **fields: Any) -> NewMessage:
    """Return a text message to one fixed number."""
    return NewMessage(device_id, "60123456789", "text", body, **fields)


def accept(connection: Connection, *messages: NewMessage) -> list[Accepted | KeyConflict]:
    """Accept messages as the router does: in one transaction. None of them may be turned away."""
    with connection.transaction():
        answers = outbox.accept(connection, messages)
    written = [answer for answer in answers if not isinstance(answer, NotAccepted)]
    assert len(written) == len(answers), answers
    return written


def accept_texts(connection: Connection, device_id: int, *bodies: str, **fields: Any) -> list[int]:
    """Accept a text for each of ``bodies`` and return the ids."""
    return [answer.id for answer in accept(connection, *(text(device_id, body, **fields) for body in bodies))]


def claim_next(sender: Outbox, device_id: int) -> Claim:
    """Claim the head of a lane that is known to have work."""
    claim = sender.claim(device_id, secrets.token_bytes(32))
    assert claim is not None
    return claim


def drain(sender: Outbox, device_id: int) -> list[str]:
    """Send all that may go now and return the texts in the order they went."""
    bodies = []
    while (claim := sender.claim(device_id, secrets.token_bytes(32))) is not None:
        sender.sent(claim, None)
        bodies.append(claim.body)
    return bodies


def state_of(connection: Connection, message_id: int) -> str:
    """Return the state of one message."""
    return str(outbox.states(connection, [message_id])[message_id]["state"])


def story_of(connection: Connection, message_id: int) -> list[str]:
    """Return every state a message was in, in order."""
    found = outbox.message(connection, message_id)
    assert found is not None
    return [each["state"] for each in found["story"]]
