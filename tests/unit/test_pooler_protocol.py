"""The pooler's reading of PostgreSQL's protocol: the same whatever the pieces it arrives in."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.pooler_protocol import (
    IDLE,
    SSL_REQUEST,
    VERSION_3,
    Messages,
    NotTheProtocol,
    take_password,
    take_startup,
    welcome,
)

ONE_QUESTION = [b"P" + b"statement", b"B" + b"values", b"E" + b"", b"S"]


def message(body: bytes) -> bytes:
    """Return a message whose first byte is its kind."""
    return body[:1] + struct.pack("!i", len(body) + 3) + body[1:]


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(st.integers(0, 500), max_size=12))
def test_every_byte_of_a_client_is_passed_on_in_order_and_each_question_is_counted_once(cuts: list[int]) -> None:
    whole = b"".join(map(message, ONE_QUESTION * 3))
    messages = Messages()
    portions = [messages.feed(piece, from_client=True) for piece in pieces(whole, cuts)]
    assert b"".join(portion.data for portion in portions) == whole
    assert sum(portion.questions for portion in portions) == 3
    assert not portions[-1].open_ended


@given(st.lists(st.integers(0, 200), max_size=12))
def test_a_server_is_ready_when_it_says_so_with_its_last_word(cuts: list[int]) -> None:
    whole = message(b"Drow") + message(b"Cselect") + message(b"ZT") + message(b"Ccommit") + message(b"ZI")
    messages = Messages()
    portions = [messages.feed(piece, from_client=False) for piece in pieces(whole, cuts)]
    assert b"".join(portion.data for portion in portions) == whole
    assert sum(portion.readies for portion in portions) == 2
    assert [portion.status for portion in portions if portion.readies][-1] == IDLE


def test_a_question_without_its_sync_is_open_ended() -> None:
    messages = Messages()
    assert messages.feed(message(b"Pstatement"), from_client=True).open_ended
    assert not messages.feed(message(b"S"), from_client=True).open_ended


def test_a_farewell_is_not_passed_on() -> None:
    portion = Messages().feed(message(b"Qselect 1") + message(b"X"), from_client=True)
    assert portion.data == message(b"Qselect 1")
    assert portion.farewell


@pytest.mark.parametrize("length", [-1, 0, 3, 1 << 30])
def test_an_impossible_length_is_not_the_protocol(length: int) -> None:
    with pytest.raises(NotTheProtocol):
        Messages().feed(b"Q" + struct.pack("!i", length) + b"select", from_client=True)


def test_a_startup_packet_is_taken_when_it_is_complete() -> None:
    body = b"user\0store\0database\0whatsmeow\0\0"
    packet = struct.pack("!ii", len(body) + 8, VERSION_3) + body
    for end in range(len(packet)):
        assert take_startup(bytearray(packet[:end])) is None
    buffer = bytearray(packet + b"rest")
    startup = take_startup(buffer)
    assert startup is not None
    assert (startup.request, startup.parameters["database"]) == (VERSION_3, "whatsmeow")
    assert buffer == b"rest"


def test_a_request_for_tls_is_known() -> None:
    startup = take_startup(bytearray(struct.pack("!ii", 8, SSL_REQUEST)))
    assert startup is not None
    assert startup.request == SSL_REQUEST


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x80\x04\x95pickle..", struct.pack("!ii", 4, VERSION_3)])
def test_what_strangers_say_is_not_the_protocol(start: bytes) -> None:
    with pytest.raises(NotTheProtocol):
        take_startup(bytearray(start))


def test_a_password_is_taken_whole_and_nothing_else_instead() -> None:
    packet = message(b"psecret\0")
    assert take_password(bytearray(packet[:-1])) is None
    assert take_password(bytearray(packet)) == b"secret"
    with pytest.raises(NotTheProtocol):
        take_password(bytearray(message(b"Qselect 1")))


def test_a_welcome_ends_with_readiness() -> None:
    portion = Messages().feed(welcome({"server_version": "18.0"}), from_client=False)
    assert b"server_version\x0018.0\x00" in portion.data
    assert (portion.readies, portion.status) == (1, IDLE)
