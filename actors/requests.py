"""What the router is asked besides sending: devices, cancelling, resolving, opt-outs, limits, fallbacks, webhooks.

Each request is one function over one transaction; what it gives back is the answer. The router does each once, however
often it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from actors import care_requests, endpoint_requests, key_requests
from actors.messages import (
    AddDevice,
    AddEndpoint,
    AddKey,
    CancelMessage,
    ChangeEndpoint,
    DeviceCommand,
    DevicesChanged,
    EndpointRequest,
    OptIn,
    OptOut,
    RecycleShard,
    RemoveEndpoint,
    ReplayDeliveries,
    ResolveMessage,
    RevokeKey,
    SetFallbacks,
    SetLimits,
    TellDevice,
    TryEndpoint,
)
from actors.platforms import contract_of
from actors.platforms.checks import check_account
from actors.public_addresses import Network
from actors.validation import check_device_name
from actors.whatsapp.addresses import names_companion
from config.errors import NotFound, Refused
from config.logging import logger
from storage import devices, fallbacks, outbox
from storage.credentials import CredentialSeal
from storage.database import Connection
from storage.devices import Device

Request = (
    AddDevice
    | DeviceCommand
    | CancelMessage
    | ResolveMessage
    | OptOut
    | OptIn
    | SetLimits
    | SetFallbacks
    | AddKey
    | RevokeKey
    | RecycleShard
    | EndpointRequest
)


@dataclass
class Office:
    """What requests need besides the database.

    Attributes:
        region: the country of numbers written without one, or empty.
        loopback: whether platforms on this machine may be used.
        networks: private networks that webhook endpoints may be in.
        notices: what the fleet's supervisor is told once the request is committed.
    """

    region: str
    seal: CredentialSeal
    loopback: bool = field(kw_only=True)
    networks: tuple[Network, ...] = ()
    notices: list[object] = field(default_factory=list)


def cancel_message(connection: Connection, message: CancelMessage, _office: Office) -> str:
    """Cancel a message that is still queued."""
    if outbox.cancel(connection, message.message_id):
        return "cancelled"
    state = _state_of(connection, message.message_id)
    reason = f"Message {message.message_id} is {state}, not queued, so it cannot be cancelled."
    raise Refused(reason, f"See run.py message {message.message_id}.", code="not_queued")


def resolve_message(connection: Connection, message: ResolveMessage, _office: Office) -> str:
    """Settle an in-doubt message by the operator's word."""
    if not message.sent and outbox.is_of_removed_device(connection, message.message_id):
        reason = f"The device of message {message.message_id} was removed, so it cannot be sent again."
        next_step = (
            "Send it anew by another device if it did not arrive; "
            f"run.py resolve {message.message_id} --sent takes it off the list."
        )
        raise Refused(reason, next_step, code="device_removed")
    if outbox.resolve(connection, message.message_id, sent=message.sent):
        return "sent" if message.sent else "queued"
    state = _state_of(connection, message.message_id)
    reason = f"Message {message.message_id} is {state}, not in doubt: there is nothing to settle."
    raise Refused(reason, f"See run.py message {message.message_id}.", code="not_in_doubt")


def _state_of(connection: Connection, message_id: int) -> str:
    """Return a message's state, for people.

    Raises:
        NotFound: there is no such message.
    """
    row = outbox.states(connection, [message_id]).get(message_id)
    if row is None:
        raise NotFound(f"There is no message {message_id}.", "See run.py messages.", code="unknown_message")
    return str(row["state"]).replace("_", " ")


def opt_out(connection: Connection, message: OptOut, office: Office) -> str:
    """Put numbers on the opt-out list."""
    return care_requests.opt_out(connection, message, office.region)


def opt_in(connection: Connection, message: OptIn, office: Office) -> str:
    """Take numbers off the opt-out list."""
    return care_requests.opt_in(connection, message, office.region)


def set_limits(connection: Connection, message: SetLimits, _office: Office) -> str:
    """Set limits of a device's own."""
    return care_requests.set_limits(connection, message)


def set_fallbacks(connection: Connection, message: SetFallbacks, _office: Office) -> str:
    """Let other devices stand in for one."""
    device = devices.by_name(connection, message.device)
    chosen = [devices.by_name(connection, name).id for name in message.fallbacks]
    if device.id in chosen or len(set(chosen)) < len(chosen):
        raise Refused("A device cannot stand in for itself, or twice.", code="bad_fallback")
    fallbacks.replace(connection, device.id, chosen)
    return ""


def add_key(connection: Connection, message: AddKey, _office: Office) -> str:
    """Add an API key."""
    return key_requests.add_key(connection, message)


def revoke_key(connection: Connection, message: RevokeKey, _office: Office) -> str:
    """End an API key."""
    return key_requests.revoke_key(connection, message)


def endpoint(connection: Connection, message: EndpointRequest, office: Office) -> str:
    """Do what is asked about a webhook endpoint."""
    return endpoint_requests.carry_out(connection, message, office.networks)


def add_device(connection: Connection, message: AddDevice, office: Office) -> str:
    """Add a device; an account that cannot be used is refused, its error names the field and never its value."""
    check_device_name(message.name)
    base_url = message.base_url
    if message.platform is not None:
        credentials = office.seal.open(message.credentials) if message.credentials else {}
        contract = contract_of(message.platform)
        account = check_account(contract, base_url, credentials, loopback_allowed=office.loopback)
        # In its one form, under which the provider's breaker knows it, too.
        base_url = account.base_url if base_url else base_url
    if message.companion is not None:
        _check_companion(message.companion.jid, message.platform)
    if message.limits is not None:
        care_requests.check_limits(message.limits)
    device_id = devices.add(
        connection,
        name=message.name,
        platform=message.platform,
        base_url=base_url,
        credentials=message.credentials,
        proxy=message.proxy,
        companion=message.companion,
        limits=message.limits,
    )
    jid = message.companion and message.companion.jid
    logger().info("Added a device", device=message.name, platform=message.platform, jid=jid)
    office.notices.append(DevicesChanged(device_id, message.platform))
    return str(device_id)


def _check_companion(jid: str, platform: str | None) -> None:
    """Refuse what cannot be a WhatsApp companion of a device."""
    if platform is not None or not names_companion(jid):
        raise Refused(f"{jid!r} does not name a WhatsApp companion.", code="bad_companion")


def command_device(connection: Connection, message: DeviceCommand, office: Office) -> str:
    """Pair, refresh, pause, resume or remove a device, or have it ask about a number."""
    device = devices.by_name(connection, message.device)
    _refuse_senseless(device, message.command)
    number = message.number
    if message.command == "pair" and number is not None:
        number = care_requests.normalise_number(number, office.region)
    if message.command in {"pause", "resume"}:
        desired = "paused" if message.command == "pause" else "running"
        devices.set_desired_state(connection, device, desired)
    if message.command == "remove":
        outbox.cancel_lane(connection, device.id)
        devices.remove(connection, device.id)
    if device.is_whatsapp:
        removed = device if message.command == "remove" else None
        office.notices.append(TellDevice(device.id, message.command, number, message.request, removed))
    if message.command == "remove":
        office.notices.append(DevicesChanged(device.id, device.platform))
    return ""


def recycle_shard(_connection: Connection, message: RecycleShard, office: Office) -> str:
    """Have a fresh process take over a shard's devices; the fleet's supervisor knows whether there is such a shard."""
    office.notices.append(message)
    return ""


def _refuse_senseless(device: Device, command: str) -> None:
    """Refuse a command that makes no sense for a device as it is."""
    name = device.name
    if not device.is_whatsapp and command in {"pair", "refresh", "check"}:
        verb = {"pair": "paired", "refresh": "refreshed", "check": "asked"}[command]
        reason = f"{name} sends through {device.platform}; there is no session to be {verb}."
        raise Refused(reason, f"See run.py device show {name}.", code="platform_device")
    if command == "pair" and device.jid is not None and device.state != "needs_pairing":
        reason = f"{name} is linked already ({device.jid})."
        raise Refused(reason, "To link another phone, remove the device and add it again.", code="already_linked")
    if command == "check" and device.state != "online":
        reason = f"{name} is {device.state}; only an online device can ask WhatsApp."
        raise Refused(reason, f"See run.py device show {name}.", code="not_online")
    if command == "refresh" and device.jid is None:
        raise Refused(f"{name} has no phone linked.", f"Link one: run.py device pair {name}", code="needs_pairing")
    if command in {"refresh", "pair"} and device.desired_state == "paused":
        raise Refused(f"{name} is paused.", f"run.py device resume {name}", code="paused")


#: Who carries out which request.
HANDLERS: Mapping[type, Callable[[Connection, Any, Office], str]] = MappingProxyType(
    {
        AddDevice: add_device,
        DeviceCommand: command_device,
        CancelMessage: cancel_message,
        ResolveMessage: resolve_message,
        OptOut: opt_out,
        OptIn: opt_in,
        SetLimits: set_limits,
        SetFallbacks: set_fallbacks,
        AddKey: add_key,
        RevokeKey: revoke_key,
        RecycleShard: recycle_shard,
        AddEndpoint: endpoint,
        ChangeEndpoint: endpoint,
        RemoveEndpoint: endpoint,
        TryEndpoint: endpoint,
        ReplayDeliveries: endpoint,
    }
)
