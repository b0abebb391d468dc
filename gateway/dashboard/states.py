"""How states look: their words, the group they belong to, and in which order they are shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one state is shown.

    Attributes:
        title: its words.
        group: what it means for whoever watches: well, moving, needs-you or resting. The group decides the shape, so
            that it can be told without colour.
    """

    title: str
    group: str


#: Devices' states, in the order of the legend: what needs a person first.
DEVICE_STATES: dict[str, Look] = {
    "logged_out": Look("logged out", "needs-you"),
    "banned": Look("banned", "needs-you"),
    "conflict": Look("conflict", "needs-you"),
    "outdated": Look("outdated", "needs-you"),
    "needs_pairing": Look("needs pairing", "needs-you"),
    "pairing": Look("pairing", "moving"),
    "reconnecting": Look("reconnecting", "moving"),
    "refreshing": Look("refreshing", "moving"),
    "connecting": Look("connecting", "moving"),
    "paused": Look("paused", "resting"),
    "ready": Look("ready", "well"),
    "online": Look("online", "well"),
}

#: The groups in words, in the order of the summary.
GROUPS = {"well": "can send", "moving": "on their way", "needs-you": "need you", "resting": "paused"}

#: Messages' states, in the order of a message's life.
MESSAGE_STATES: dict[str, Look] = {
    "queued": Look("queued", "moving"),
    "sending": Look("sending", "moving"),
    "sent": Look("sent", "well"),
    "delivered": Look("delivered", "well"),
    "read": Look("read", "well"),
    "in_doubt": Look("in doubt", "needs-you"),
    "failed": Look("failed", "failed"),
    "expired": Look("expired", "failed"),
    "cancelled": Look("cancelled", "resting"),
}

_UNKNOWN = Look("", "moving")


def look_of(state: str) -> Look:
    """Return how a device's or a message's state looks; one that is not known here is shown by its name."""
    known = DEVICE_STATES.get(state) or MESSAGE_STATES.get(state)
    return known or Look(state.replace("_", " "), _UNKNOWN.group)
