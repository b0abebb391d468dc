"""The whole protocol between actors, and between actors and those who ask them.

Three kinds: requests and their answers (each carries ``request``, an id that the answer repeats), hints
(losing one costs time, never a message), and reports of life. What must survive is a row, not a message.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime

from config.trace_context import TraceContext
from storage.care import Limits
from storage.devices import Companion, Device


def new_request() -> str:
    """Return an id that ties an answer to its request."""
    return secrets.token_hex(16)


# --- requests to the router ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Media:
    """A file to send: where it is, what it is (image, document, video, audio), and its name."""

    url: str
    kind: str = ""
    name: str = ""


@dataclass(frozen=True)
class SendMessage:
    """Send ``text`` (with ``media``: as its caption) from ``device`` to the number or group ``to``.

    ``template``: the text is the JSON of a template message (platforms of WhatsApp's official API only).

    A repeated ``idempotency_key`` gives the first message's id and sends nothing twice. Higher ``priority``
    overtakes on the device's lane. ``not_before`` schedules; after ``expires_at`` it is not sent any more. ``trace``
    says where it belongs in a trace; None: one begins with it (only if traces are exported at all).
    """

    device: str
    to: str
    text: str = ""
    media: Media | None = None
    template: bool = False
    idempotency_key: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None
    trace: TraceContext | None = None
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class SendBatch:
    """Send many messages, in order, committed together. At most 500."""

    messages: tuple[SendMessage, ...]
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class AddDevice:
    """Add a device; ``platform`` None means WhatsApp. Secrets arrive sealed.

    ``companion``: a phone linked it already, with another tool; its session is in the store. ``limits``: of its own.
    """

    name: str
    platform: str | None = None
    base_url: str | None = None
    credentials: bytes | None = None
    proxy: bytes | None = None
    companion: Companion | None = None
    limits: Limits | None = None
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class DeviceCommand:
    """Tell a device something: pair, refresh, pause, resume, remove, or check whether ``number`` is on WhatsApp.

    With ``pair``, ``number`` asks for a pairing code.
    """

    device: str
    command: str
    number: str | None = None
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class CancelMessage:
    """Cancel a message that is still queued."""

    message_id: int
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class ResolveMessage:
    """Settle an in-doubt message: it was sent, or it was not and shall be sent again."""

    message_id: int
    sent: bool
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class OptOut:
    """Write to these numbers no more, by any route; what is queued for them is cancelled. At most 500."""

    numbers: tuple[str, ...]
    source: str = "operator"
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class OptIn:
    """These numbers may be written to again. At most 500."""

    numbers: tuple[str, ...]
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class SetLimits:
    """Set limits of a device's own. None leaves one as it is, or, with ``reset``, to the installation's setting."""

    device: str
    limits: Limits
    reset: bool = False
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class SetFallbacks:
    """Let these devices stand in for ``device``, in this order, when its route definitely takes no message."""

    device: str
    fallbacks: tuple[str, ...]
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class AddKey:
    """Add an API key. ``digest`` is what is kept of it; ``devices``: it is bound to these."""

    public_id: str
    digest: bytes
    scope: str
    devices: tuple[str, ...] = ()
    name: str = ""
    per_minute: int | None = None
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class AddEndpoint:
    """Tell ``url`` of these events (of one device, or of all), signed with the secret; it arrives sealed."""

    url: str
    events: tuple[str, ...]
    secret: bytes
    device: str | None = None
    description: str = ""
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class RevokeKey:
    """End an API key."""

    public_id: str
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class RecycleShard:
    """Let a fresh process take over the devices of this shard, one by one."""

    shard: str
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class ChangeEndpoint:
    """Change a webhook endpoint; None leaves a part as it is."""

    endpoint_id: int
    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    enabled: bool | None = None
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class RemoveEndpoint:
    """Remove a webhook endpoint; what it was still to be told is told to nobody."""

    endpoint_id: int
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class TryEndpoint:
    """Tell a webhook endpoint something that happened to nobody."""

    endpoint_id: int
    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class ReplayDeliveries:
    """Tell a webhook endpoint its dead letters once more, or one delivery that is over."""

    endpoint_id: int
    delivery_id: int | None = None
    request: str = field(default_factory=new_request)


EndpointRequest = AddEndpoint | ChangeEndpoint | RemoveEndpoint | TryEndpoint | ReplayDeliveries

# --- answers of the router -------------------------------------------------------------------------------


@dataclass(frozen=True)
class MessageAccepted:
    """The message is committed under ``id``."""

    id: int
    request: str
    repeated: bool = False


@dataclass(frozen=True)
class MessageRejected:
    """The message was not accepted; nothing was changed."""

    code: str
    reason: str
    request: str
    next_step: str = ""


@dataclass(frozen=True)
class BatchAnswer:
    """One answer for each message of a batch, in order."""

    answers: tuple[MessageAccepted | MessageRejected, ...]
    request: str


@dataclass(frozen=True)
class Done:
    """The request was carried out, or handed on to the device it concerns."""

    request: str
    detail: str = ""


@dataclass(frozen=True)
class RequestRefused:
    """The request was not carried out; nothing was changed."""

    code: str
    reason: str
    request: str
    next_step: str = ""


# --- between the fleet's supervisor and its children -----------------------------------------------------


@dataclass(frozen=True)
class StartChild:
    """The first message to a child: who it is. ``owner`` names this instance in the outbox's attempts.

    ``order``: as in :class:`HostDevices`.
    """

    role: str
    name: str
    owner: str
    device_ids: tuple[int, ...] = ()
    restarted: bool = False
    connects_per_second: float = 1.0
    order: int = 0


@dataclass(frozen=True)
class Wear:
    """How worn a shard's process is: clients opened, descriptors, memory (MB), age (seconds)."""

    refreshes: int
    descriptors: int
    megabytes: float
    seconds: float


@dataclass(frozen=True)
class Heartbeat:
    """A child lives: its process, when that started, and what it hosts.

    A device is in ``device_ids`` for as long as a connection of it may be open. ``order``: the last order it has
    carried out. ``opening``: those that came from another shard and are not online yet.
    """

    role: str
    name: str
    owner: str
    pid: int
    process_started: float
    device_ids: tuple[int, ...] = ()
    order: int = 0
    opening: tuple[int, ...] = ()
    wear: Wear | None = None


@dataclass(frozen=True)
class StopChild:
    """Finish what is under way and leave."""


@dataclass(frozen=True)
class HostDevices:
    """The devices a shard hosts from now on, and its share of the fleet's connects a second.

    Orders are numbered; heartbeats tell which was carried out. ``at_rest``: devices that move to another shard, and
    are let go when nothing of them is under way.
    """

    device_ids: tuple[int, ...]
    connects_per_second: float = 1.0
    order: int = 0
    at_rest: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConnectShare:
    """A shard's share of the fleet's connects a second, from now on."""

    per_second: float


@dataclass(frozen=True)
class TellDevice:
    """A command for one device, on its way from the router to the shard that hosts it.

    ``removed`` is what a removed device's row was: it is gone from the table when the command arrives.
    """

    device_id: int
    command: str
    number: str | None
    request: str
    removed: Device | None = None


@dataclass(frozen=True)
class DevicesChanged:
    """The router changed the device table; ``platform`` tells which platform is concerned, if one is."""

    device_id: int
    platform: str | None


@dataclass(frozen=True)
class Routes:
    """Where messages go: each WhatsApp device's shard and each platform's actor (addresses)."""

    shards: dict[int, object]
    platforms: dict[str, object]


@dataclass(frozen=True)
class RouterAt:
    """Where the router is (its address), for the gateway; ``owner`` names this instance of it."""

    address: object
    owner: str


@dataclass(frozen=True)
class WorkWaiting:
    """There are messages for these devices. A hint: lanes are looked at every second anyway."""

    device_ids: tuple[int, ...]


@dataclass(frozen=True)
class WorkNoted:
    """The hint arrived; another may be sent."""


@dataclass(frozen=True)
class Ping:
    """Ask whether an actor is there."""

    request: str = field(default_factory=new_request)


@dataclass(frozen=True)
class Pong:
    """Say that it is, in this process."""

    request: str
    pid: int
    process_started: float
    detail: str = ""
