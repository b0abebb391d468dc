"""Frames: what was sealed comes back whole; anything else is refused before it is unpickled, or even kept."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisors.frames import LARGEST_FRAME, FrameBuffer, FrameRefusedError, FrameSeal

SEAL = FrameSeal(b"k" * 32)


def frame(value: Any, seal: FrameSeal = SEAL) -> bytes:
    sealed = seal.dumps(value)
    return str(len(sealed)).encode() + b">" + sealed


def forbidden(_body: Any) -> Any:
    raise AssertionError("a refused frame was unpickled")


def feed(data: bytes, step: int, loads: Any = FrameSeal.loads) -> FrameBuffer:
    """Feed a buffer as the transport does: never more than it asks for."""
    buffer = FrameBuffer(SEAL, loads)
    while data and not buffer.isDone():
        size = min(step, buffer.remainingAmount())
        assert size > 0
        buffer.addMore(data[:size])
        data = data[size:]
    assert not data
    return buffer


@given(st.recursive(st.text() | st.integers() | st.binary(), st.lists), st.integers(1, 200))
def test_what_was_sealed_comes_back_however_it_is_cut(value: Any, step: int) -> None:
    assert feed(frame(value), step).completed() == (value, b"")


def test_a_buffer_knows_how_far_it_is() -> None:
    data = frame("hello")
    buffer = FrameBuffer(SEAL)
    assert buffer.is_empty()
    buffer.addMore(b"")
    assert buffer.is_empty()
    assert buffer.completed() is None
    buffer.addMore(data[:-1])
    assert not buffer.is_empty()
    assert buffer.remainingAmount() == 1
    assert buffer.completed() is None
    buffer.addMore(data[-1:])
    assert buffer.isDone()


@given(st.data())
def test_a_frame_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    original = frame(["some", "message"])
    place = data.draw(st.integers(0, len(original) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != original[place]))
    changed = original[:place] + bytes([other]) + original[place + 1 :]
    buffer = FrameBuffer(SEAL, forbidden)
    try:
        while changed and not buffer.isDone():
            size = buffer.remainingAmount()
            buffer.addMore(changed[:size])
            changed = changed[size:]
    except FrameRefusedError:
        pass
    assert buffer.completed() is None


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    buffer = FrameBuffer(SEAL, forbidden)
    with contextlib.suppress(FrameRefusedError):
        buffer.addMore(data)
    assert buffer.completed() is None


@pytest.mark.parametrize(
    "data",
    [
        b"-5>",
        b">",
        b"0>",
        b"64>",
        b"5",
        b"1e9>",
        b"+100>",
        b" 100>",
        b"100 >",
        str(LARGEST_FRAME + 1).encode() + b">",
    ],
)
def test_a_size_that_cannot_be_is_refused_at_once(data: bytes) -> None:
    if data == b"5":
        data *= 100
    with pytest.raises(FrameRefusedError):
        FrameBuffer(SEAL).addMore(data)


def test_a_stranger_is_turned_away_before_his_frame_is_kept() -> None:
    buffer = FrameBuffer(SEAL, forbidden)
    buffer.addMore(str(LARGEST_FRAME).encode() + b">")
    assert buffer.remainingAmount() == 32
    with pytest.raises(FrameRefusedError):
        buffer.addMore(bytes(32))


def test_another_key_is_refused() -> None:
    with pytest.raises(FrameRefusedError):
        feed(frame("hello", FrameSeal(b"x" * 32)), 1000, forbidden)


def test_a_proof_of_the_size_does_not_prove_another_body() -> None:
    data = frame("hello")
    with pytest.raises(FrameRefusedError):
        feed(data[:-5] + b"world", 1000, forbidden)


def test_more_than_was_announced_is_refused() -> None:
    with pytest.raises(FrameRefusedError):
        FrameBuffer(SEAL).addMore(frame("hello") + b"x")


def test_what_no_receiver_would_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="too large"):
        SEAL.dumps(bytes(LARGEST_FRAME))


def test_a_key_has_its_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        FrameSeal(b"short")
