"""What the library's error texts mean for a message and for a connection."""

from __future__ import annotations

import pytest

from actors.whatsapp.events import NotSent, SendRefused, SendUnknown
from actors.whatsapp.outcomes import connect_error, send_error


@pytest.mark.parametrize(
    "text",
    [
        "the store doesn't contain a device JID",
        "failed to get LID for PN 1@s.whatsapp.net: pq: the database system is starting up",
        "failed to get user info for 1@s.whatsapp.net to fill LID cache: info query timed out",
        "failed to get user info for 1@s.whatsapp.net to fill LID cache: websocket not connected",
        "failed to get device list: info query returned status 500: sim",
        "failed to marshal message for retry store: oops",
        "failed to save cached sessions: driver: bad connection",
        "failed to send message node: websocket not connected",
        "failed to send message node: frame socket is closed",
    ],
)
def test_errors_before_the_socket_are_not_sent(text: str) -> None:
    assert type(send_error(text)) is NotSent


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("server returned error 463", "whatsapp_463"),
        ("no LID found for 1@s.whatsapp.net from server", "not_on_whatsapp"),
        ("can't send message to unknown server broadcast", "recipient_invalid"),
        ("message recipient must be a user JID with no device part", "recipient_invalid"),
        ("failed to marshal message: string field contains invalid UTF-8", "message_invalid"),
        ("failed to send message node: frame too large (got 20 bytes, max 10 bytes)", "message_too_large"),
    ],
)
def test_errors_that_no_repetition_cures_are_refusals(text: str, code: str) -> None:
    error = send_error(text)
    assert (type(error), error.code) == (SendRefused, code)


@pytest.mark.parametrize(
    "text",
    [
        "timed out waiting for message send response",
        "websocket disconnected before message send returned response",
        "websocket disconnected before message send (retry) returned response",
        # Without its prefix this comes from a repetition: the first copy may have arrived.
        "websocket not connected",
        "frame socket is closed",
        "failed to send message node: write tcp 127.0.0.1: broken pipe",
        "context canceled",
        "something new in the next version",
        "",
    ],
)
def test_everything_else_is_unknown(text: str) -> None:
    assert type(send_error(text)) is SendUnknown


_DIAL = "failed to dial whatsapp web websocket: failed to WebSocket dial: "
_HANDSHAKE = _DIAL + 'failed to send handshake request: Get "https://web.whatsapp.com/ws/chat": '


@pytest.mark.parametrize(
    ("text", "own_proxy", "code"),
    [
        (_HANDSHAKE + "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused", True, "proxy_error"),
        (_HANDSHAKE + "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused", False, "connect_refused"),
        (_HANDSHAKE + "Bad Gateway", False, "connect_refused"),
        (_HANDSHAKE + "Proxy Authentication Required", True, "proxy_error"),
        (_HANDSHAKE + "dial tcp: lookup web.whatsapp.com: no such host", False, "connect_refused"),
        (_HANDSHAKE + "net/http: TLS handshake timeout", False, "connect_timeout"),
        (_HANDSHAKE + "tls: failed to verify certificate: x509: unknown authority", False, "certificate_refused"),
        (_DIAL + "expected handshake response status code 101 but got 503", False, "server_error"),
        ("noise handshake failed: timed out waiting for handshake response", False, "connect_timeout"),
        ("noise handshake failed: failed to verify server cert: bad signature", False, "certificate_refused"),
        ("failed to upgrade database: dial unix /x/.s.PGSQL.5432: connect: no such file", False, "store_unavailable"),
        ("pq: sorry, too many clients already", False, "store_unavailable"),
        ("invalid use of deleted device", False, "logged_out"),
        ('unsupported proxy scheme "ftp"', True, "proxy_error"),
    ],
)
def test_a_failed_connect_is_told_by_its_cause(text: str, own_proxy: bool, code: str) -> None:
    assert connect_error(text, own_proxy=own_proxy).code == code
