"""Lock-out: how often may a name be tried, and from one address, before everybody has to wait. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.users import Failures

#: Failures count for so long, in seconds.
WINDOW_SECONDS = 900.0
#: So many failures of one name, or from one address (behind which a whole office may sit), lock it.
NAME_LIMIT = 5
ADDRESS_LIMIT = 20


def name_subject(name: str) -> bytes:
    """Return what a tried name is noted as. Only its hash: people type passwords into the wrong field."""
    return hashlib.sha256(f"name/{name.strip().lower()}".encode("utf-8", "surrogatepass")).digest()


def address_subject(address: str) -> bytes:
    """Return what an address is noted as."""
    return hashlib.sha256(f"address/{address}".encode()).digest()


def address_of(peer: str, forwarded_for: str) -> str:
    """Return the address a request comes from.

    A proxy on this machine adds whom it speaks for at the end of ``X-Forwarded-For``; what stands before that, and what
    any other peer says of itself, is a stranger's word.
    """
    last = forwarded_for.rsplit(",", 1)[-1].strip()
    try:
        if last and ipaddress.ip_address(peer).is_loopback:
            return str(ipaddress.ip_address(last))
    except ValueError:
        pass
    return peer


def locked_for(name: bytes, address: bytes, failures: Mapping[bytes, Failures], now: datetime) -> float:
    """Return for how many seconds more nobody may try this name from this address; 0: now."""
    waits = [0.0]
    for subject, limit in ((name, NAME_LIMIT), (address, ADDRESS_LIMIT)):
        failed = failures.get(subject)
        if failed is not None and failed.count >= limit:
            waits.append((failed.oldest + timedelta(seconds=WINDOW_SECONDS) - now).total_seconds())
    return max(waits)
