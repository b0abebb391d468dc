"""Which addresses a URL of somebody else's may lead to: none inside our own networks, however they are written.

A name is resolved once, every address it has is checked, and the connection goes to one of those (see
``actors/platforms/connections.py``): a name that leads elsewhere a moment later leads nobody astray.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: This machine.
LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
#: The part of IPv6 that is given out for the internet: whatever lies elsewhere is local, or a way to IPv4.
_GLOBAL = ipaddress.IPv6Network("2000::/3")
#: IPv6 networks without IPv4 reach it through here (RFC 6052). Their own prefix (RFC 8215) leads inside as well.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(Exception):
    """A host has an address inside a private network."""


class HostUnknown(Exception):
    """A host has no address."""


@dataclass(frozen=True)
class AddressRule:
    """Where connections may lead: to public addresses, and into these networks though they are private.

    With ``inside`` they may lead nowhere else, for what is not encrypted.
    """

    networks: tuple[Network, ...] = ()
    inside: bool = False

    def allows(self, address: Address) -> bool:
        """Return whether a connection may lead to ``address``."""
        return any(address in network for network in self.networks) or (not self.inside and is_public(address))

    def resolve(self, host: str) -> list[str]:
        """Return the addresses of ``host``, in the system's order of preference.

        Raises:
            AddressRefused: one of them is not allowed.
            HostUnknown: it has none.
        """
        try:
            infos = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise HostUnknown from None
        found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        for text in found:
            if not self.allows(ipaddress.ip_address(text.split("%")[0])):
                raise AddressRefused
        return found


def is_public(address: Address) -> bool:
    """Return whether an address is anywhere on the internet rather than inside a private network."""
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that lead to an IPv4 one are as public as that.
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if embedded is not None:
            return is_public(embedded)
        if address not in _GLOBAL:
            return False
    return address.is_global and not address.is_multicast
