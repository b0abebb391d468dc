"""The faults a stand-in shows on request, and for how long."""

from __future__ import annotations

import time

from config.errors import NotFound

#: Every kind of fault, in one line each. All act on sends; ``disconnected`` shows in the device's status too.
FAULTS = {
    "failure-body": "refuses the message with the platform's documented failure; nothing is recorded",
    "bad-credential": "answers as if the credential were wrong, with its HTTP status; nothing is recorded",
    "disconnected": "answers that the phone is not linked; platforms that queue meanwhile or have none still take it",
    "throttle": "answers that it came too soon, with the platform's HTTP status; nothing is recorded",
    "slow-after-recording": "records the message, then holds the answer for two minutes",
    "reset-before-recording": "reads the request, then resets the connection; nothing is recorded",
    "reset-after-recording": "records the message, then resets the connection instead of answering",
    "garbage-200": "records the message, then answers 200 with text that is no JSON",
    "empty-200": "records the message, then answers 200 with nothing",
    "html-502": "records the message, then answers as a broken proxy in front would: 502 with HTML",
    "drip": "records the message, then answers one byte every half second",
    "duplicate-callbacks": "takes the message and reports each of its stages twice",
    "unordered-callbacks": "takes the message and reports its stages in reverse order",
    "clear": "ends the fault",
}


class FaultSwitch:
    """The fault of one stand-in, if any."""

    def __init__(self) -> None:
        self._kind = ""
        self._until: float | None = None

    def set(self, kind: str, seconds: float | None) -> None:
        """Show ``kind`` for ``seconds`` (None: until cleared).

        Raises:
            NotFound: there is no such fault.
        """
        if kind not in FAULTS:
            raise NotFound(f"There is no platform fault {kind!r}.", f"There are: {', '.join(FAULTS)}.")
        self._kind = "" if kind == "clear" else kind
        self._until = None if seconds is None else time.monotonic() + seconds

    @property
    def kind(self) -> str:
        """The fault to show now, or ""."""
        if self._until is not None and time.monotonic() >= self._until:
            return ""
        return self._kind
