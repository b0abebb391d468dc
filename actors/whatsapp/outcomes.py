"""What the WhatsApp library's error texts mean. Pure: text in, decision out.

neonize hands on errors of Go as text alone. The texts, and the order of things around them, are those of
whatsmeow 2026-08-06 (``send.go``, ``request.go``, ``errors.go``, ``upload.go``) as built into neonize 0.5.2.
"""

from __future__ import annotations

import re

from actors.whatsapp.events import ClientError, NotSent, SendRefused, SendUnknown

#: Beginnings of errors that ``SendMessage`` returns before it hands the message to the socket.
_BEFORE_SENDING = (
    "client is nil",
    "the store doesn't contain a device JID",
    "failed to get LID for PN",
    "failed to get user info for",
    "failed to get group members",
    "failed to marshal message for retry store",
    "failed to add message to retry store",
    "failed to clear old messages from retry store",
    "failed to get device list",
    "failed to fetch LID mappings",
    "failed to prefetch sessions",
    "failed to save cached sessions",
    "failed to create sender key distribution message",
    "failed to encrypt group message",
    # The socket was already gone when the finished message was to be written. The same words without the
    # prefix come after a first write, when the library tried to repeat it: those say nothing.
    "failed to send message node: websocket not connected",
    "failed to send message node: frame socket is closed",
    "failed to send message node: failed to marshal node",
)
#: Beginnings of errors that no repetition will cure, all of them before anything was sent: (text, code, words).
_HOPELESS = (
    ("no LID found for", "not_on_whatsapp", "The recipient is not on WhatsApp"),
    ("message recipient must be a user JID", "recipient_invalid", "The recipient is not an account"),
    ("can't send message to unknown server", "recipient_invalid", "The recipient is not an account"),
    ("sending to non-status broadcast lists", "recipient_invalid", "Broadcast lists cannot be sent to"),
    ("failed to marshal message", "message_invalid", "The message cannot be encoded"),
)
_SERVER_ERROR = re.compile(r"^server returned error (\d+)")
_FRAME_TOO_LARGE = re.compile(r"^failed to send message node: .*frame too large")
_HTTP_STATUS = re.compile(r"expected handshake response status code 101 but got (\d+)")


def send_error(text: str) -> ClientError:
    """Return what an error of ``SendMessage`` says about the message.

    Anything that is not certain is :class:`SendUnknown`: a wrong "not sent" would deliver a message twice.
    """
    if match := _SERVER_ERROR.match(text):
        return SendRefused(f"whatsapp_{match[1]}", f"WhatsApp refused the message with error {match[1]}.")
    for beginning, code, words in _HOPELESS:
        # "for retry store" shares a beginning with an error of the message itself.
        if text.startswith(beginning) and not text.startswith("failed to marshal message for retry store"):
            return SendRefused(code, f"{words}.")
    if _FRAME_TOO_LARGE.match(text):
        return SendRefused("message_too_large", "The message is larger than WhatsApp takes.")
    if text.startswith(_BEFORE_SENDING):
        code = "not_connected" if text.endswith("websocket not connected") else "not_prepared"
        return NotSent(code, f"The message was not sent: {text}.")
    if text.startswith("timed out waiting for message send response"):
        return SendUnknown("no_acknowledgement", "WhatsApp did not acknowledge the message.")
    if text.startswith(("websocket disconnected before", "websocket not connected")):
        return SendUnknown("disconnected", "The connection broke before WhatsApp acknowledged the message.")
    return SendUnknown("unclear", f"The library cannot say whether the message was sent: {text}.")


def connect_error(text: str, *, own_proxy: bool) -> ClientError:
    """Return what an error of the first connect means.

    Args:
        text: what the library said.
        own_proxy: whether the device has a proxy of its own, which is then what failed.
    """
    lowered = text.lower()
    if "unsupported proxy scheme" in lowered or lowered.startswith('parse "'):
        return ClientError("proxy_error", "The proxy's address is not usable.")
    if "invalid use of deleted device" in lowered:
        return ClientError("logged_out", "The session was ended.")
    if not ("dial whatsapp" in lowered or "noise handshake" in lowered or "websocket" in lowered):
        return ClientError("store_unavailable", f"The session store did not answer: {text}.")
    if status := _HTTP_STATUS.search(text):
        return ClientError("server_error", f"WhatsApp answered the connection with HTTP {status[1]}.")
    if "proxyconnect" in lowered or "socks" in lowered:
        code = "proxy_error" if own_proxy else "connect_refused"
        return ClientError(code, f"The proxy cannot be reached: {_last_words(text)}.")
    if "timeout" in lowered or "timed out" in lowered or "deadline exceeded" in lowered:
        return ClientError("connect_timeout", "WhatsApp did not answer the connection in time.")
    if "x509" in lowered or "certificate" in lowered or "server cert" in lowered or "tls:" in lowered:
        return ClientError("certificate_refused", f"The server is not WhatsApp: {_last_words(text)}.")
    if own_proxy and "failed to send handshake request" in lowered and "dial tcp" not in lowered:
        return ClientError("proxy_error", f"The proxy refused the connection: {_last_words(text)}.")
    return ClientError("connect_refused", f"WhatsApp cannot be reached: {_last_words(text)}.")


def _last_words(text: str) -> str:
    """Return the innermost of Go's nested errors."""
    return text.rpartition(": ")[2] or text
