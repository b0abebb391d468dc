"""The selector that the actor system's loop waits with: as Python's own, for one look."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest

from supervisors.polling import EVENT_READ, EVENT_WRITE, DefaultSelector

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def look(*wanted: tuple[int, int], seconds: float | None = 0.0) -> dict[int, int]:
    selector = DefaultSelector()
    for descriptor, events in wanted:
        selector.register(descriptor, events)
    found = {ready.fd: events for ready, events in selector.select(seconds)}
    selector.close()
    return found


def test_it_tells_what_can_be_read_and_what_can_be_written(pair: Pair) -> None:
    ours, theirs = pair
    assert look((ours.fileno(), EVENT_READ)) == {}
    assert look((ours.fileno(), EVENT_WRITE)) == {ours.fileno(): EVENT_WRITE}
    theirs.send(b"x")
    assert look((ours.fileno(), EVENT_READ), (theirs.fileno(), EVENT_WRITE)) == {
        ours.fileno(): EVENT_READ,
        theirs.fileno(): EVENT_WRITE,
    }
    assert look((ours.fileno(), EVENT_READ), (ours.fileno(), EVENT_WRITE)) == {ours.fileno(): EVENT_READ | EVENT_WRITE}


def test_what_was_hung_up_can_be_read(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    assert look((ours.fileno(), EVENT_READ))[ours.fileno()] & EVENT_READ


def test_a_closed_descriptor_is_an_error_as_with_pythons_own(pair: Pair) -> None:
    closed = os.dup(pair[0].fileno())
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        look((pair[0].fileno(), EVENT_READ), (closed, EVENT_READ))
    assert raised.value.errno == errno.EBADF
    with pytest.raises(ValueError, match="-1"):
        look((-1, EVENT_READ))


@pytest.mark.parametrize("seconds", [0.0005, 0.02])
def test_it_waits_no_shorter_than_it_is_told(pair: Pair, seconds: float) -> None:
    began = time.monotonic()
    assert look((pair[0].fileno(), EVENT_READ), seconds=seconds) == {}
    assert time.monotonic() - began >= seconds
    assert look((pair[0].fileno(), EVENT_READ), seconds=-1.0) == {}
