"""What log lines of the library, and events it could not encode, are turned into."""

from __future__ import annotations

import pytest

from actors.whatsapp.addresses import Address, parse_address
from actors.whatsapp.events import ConnectRefused, LoggedOut, StreamFailed, TemporarilyBanned
from actors.whatsapp.translation import (
    failure_node,
    logged_ending,
    logged_event,
    lost_event,
    not_encrypted,
    secret_not_stored,
)


def test_a_secret_that_was_not_stored_names_its_message() -> None:
    line = "Failed to store message secret key for outgoing message 3EB0A1B2: pq: terminating connection"
    assert secret_not_stored(line) == "3EB0A1B2"
    assert secret_not_stored("Stored message secret key for outgoing message 3EB0A1B2") is None


def test_a_copy_that_was_left_out_names_message_and_device() -> None:
    line = "Failed to encrypt 3EB0A1B2 for 100060:2@lid: can't encrypt message for device: no signal session"
    assert not_encrypted(line) == ("3EB0A1B2", "100060:2@lid")


def test_logins_that_the_library_repeats_are_told_by_its_log_alone() -> None:
    line = "Got 503/busy connect failure, assuming automatic reconnect will handle it"
    assert logged_event(line) == ConnectRefused(503, "busy")
    assert logged_event("Failed to reconnect after 515 code: EOF") == StreamFailed("515")
    assert logged_event("Successfully authenticated") is None


def test_the_end_of_a_session_is_told_by_the_log_too() -> None:
    line = "Got 403: primary device was logged out connect failure, sending LoggedOut event and deleting session"
    assert logged_ending(line) == LoggedOut(403)


def test_a_ban_with_an_unknown_code_is_read_off_the_log() -> None:
    node = failure_node('Temporary ban connect failure: <failure code="999" expire="60" reason="402"/>')
    assert node is not None
    assert lost_event("proto:\u00a0required field neonize.TemporaryBan.Code not set", node) == TemporarilyBanned(
        999, 60.0
    )
    assert lost_event("proto: required field neonize.TemporaryBan.Code not set", "") == TemporarilyBanned(0, None)


def test_a_failure_with_an_unknown_reason_is_read_off_the_log() -> None:
    node = failure_node('Unknown connect failure: <failure reason="404" message="gone"/>')
    assert lost_event("required field neonize.ConnectFailure.Reason not set", node or "") == ConnectRefused(404, "gone")


def test_any_other_event_that_was_lost_means_that_the_library_went_deaf() -> None:
    assert lost_event("required field neonize.Receipt.Type not set", "") == StreamFailed("library_stopped")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("+60123456789", Address("60123456789", "s.whatsapp.net")),
        ("60123456789:7@s.whatsapp.net", Address("60123456789", "s.whatsapp.net", 7)),
        ("60123456789.0:7@s.whatsapp.net", Address("60123456789", "s.whatsapp.net", 7)),
        ("1000@lid", Address("1000", "lid")),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "+", "abc", "6012 3456", "@lid", "6012@", "6012:x@s.whatsapp.net", "６０１２"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|not a JID"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "is_companion"),
    [
        ("601:1@s.whatsapp.net", True),
        ("601@s.whatsapp.net", False),
        ("601:0@s.whatsapp.net", False),
        ("1:1@lid", False),
    ],
)
def test_only_a_phone_numbers_device_can_have_a_stored_session(text: str, is_companion: bool) -> None:
    assert parse_address(text).is_companion is is_companion
