"""What the router does when it is asked about webhook endpoints, and which endpoints and events there may be."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.messages import AddEndpoint, ChangeEndpoint, RemoveEndpoint, ReplayDeliveries
from actors.public_addresses import LOOPBACK, AddressRule, Network
from config.errors import Refused
from storage import devices, endpoint_deliveries, endpoints
from storage.text import is_storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import EndpointRequest
    from config.settings import Settings
    from storage.database import Connection

_URL_LIMIT = 2048
_DESCRIPTION_LIMIT = 200
#: What an endpoint may ask for: everything, a family, or one kind of event. What comes after the dot is a state, or
#: what was restarted.
FAMILIES = ("message", "recipient", "device", "restart")
_EVENT = re.compile(rf"\*|(?:{'|'.join(FAMILIES)})\.(?:\*|[a-z][a-z_]{{0,40}})")
_EVENTS_LIMIT = 50


def endpoint_networks(settings: Settings, *, loopback: bool) -> tuple[Network, ...]:
    """Return the private networks that endpoints may be in; ``loopback``: the simulator runs, so this machine, too."""
    configured = tuple(ipaddress.ip_network(network) for network in settings.endpoint_networks)
    return (*configured, *LOOPBACK) if loopback else configured


def address_rule(url: str, networks: tuple[Network, ...]) -> AddressRule:
    """Return where connections for an endpoint may lead: what is not encrypted stays inside ``networks``."""
    return AddressRule(networks, inside=urlsplit(url).scheme == "http")


def carry_out(connection: Connection, message: EndpointRequest, networks: tuple[Network, ...]) -> str:
    """Do what is asked and return the answer: an id, or how many deliveries are made once more.

    Raises:
        Refused, NotFound: it cannot be done; nothing was changed.
    """
    if isinstance(message, AddEndpoint):
        check_url(message.url, networks)
        check_events(message.events)
        _check_description(message.description)
        device_id = None if message.device is None else devices.by_name(connection, message.device).id
        added = endpoints.add(
            connection,
            url=message.url,
            description=message.description,
            events=message.events,
            device_id=device_id,
            secret=message.secret,
        )
        return str(added)
    if isinstance(message, RemoveEndpoint):
        endpoints.remove(connection, message.endpoint_id)
        return ""
    if isinstance(message, ChangeEndpoint):
        return _change(connection, message, networks)
    endpoint = endpoints.by_id(connection, message.endpoint_id)
    if not endpoint.enabled:
        reason = f"Endpoint {endpoint.id} is switched off."
        raise Refused(reason, f"run.py webhook enable {endpoint.id}", code="endpoint_off")
    if isinstance(message, ReplayDeliveries):
        return str(endpoint_deliveries.replay(connection, endpoint.id, message.delivery_id))
    return str(endpoint_deliveries.test(connection, endpoint.id))


def _change(connection: Connection, message: ChangeEndpoint, networks: tuple[Network, ...]) -> str:
    if message.url is not None:
        check_url(message.url, networks)
    if message.events is not None:
        check_events(message.events)
    _check_description(message.description or "")
    endpoints.change(
        connection,
        message.endpoint_id,
        url=message.url,
        description=message.description,
        events=message.events,
        enabled=message.enabled,
        reason="Switched off by the operator." if message.enabled is False else "",
    )
    return ""


def check_url(url: str, networks: tuple[Network, ...]) -> None:
    """Refuse a URL that endpoints cannot have. Where a name leads is checked at each connection.

    Raises:
        Refused: it is no https URL (http only into ``networks``), or holds credentials, or a private address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"} or not re.fullmatch(r"[!-~]+", url) or len(url) > _URL_LIMIT:
        raise _bad_url("It is no https address.")
    if "@" in parts.netloc or parts.fragment:
        raise _bad_url("It must hold neither user and password nor a fragment.")
    if parts.scheme == "http" and not networks:
        raise _bad_url("It must be https.", "Set endpoint_networks to allow http into a private network.")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return
    if not address_rule(url, networks).allows(literal):
        raise _bad_url("It leads into a private network.", "Set endpoint_networks to allow that.", "private_address")


def check_events(events: Sequence[str]) -> None:
    """Refuse events that there cannot be.

    Raises:
        Refused: one of them is unknown, or there is none.
    """
    unknown = next((event for event in events if not _EVENT.fullmatch(event)), None)
    if unknown is not None or not 0 < len(events) <= _EVENTS_LIMIT:
        reason = "No events are named." if unknown is None else f"There is no event {unknown[:80]!r}."
        families = ", ".join(f"{family}.*" for family in FAMILIES)
        raise Refused(reason, f"Name *, families ({families}) or kinds as message.sent.", code="bad_events")


def _check_description(description: str) -> None:
    if len(description) > _DESCRIPTION_LIMIT or not is_storable(description):
        reason = f"A description is a text of at most {_DESCRIPTION_LIMIT} characters."
        raise Refused(reason, "Shorten it.", code="bad_description")


def _bad_url(reason: str, next_step: str = "Write it as https://example.com/path.", code: str = "bad_url") -> Refused:
    return Refused(f"The endpoint's URL cannot be used. {reason}", next_step, code=code)
