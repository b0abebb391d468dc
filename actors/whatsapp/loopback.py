"""Points the real WhatsApp library at a loopback stand-in for WhatsApp, for the demo, tests and benchmarks.

Two things have to change: the certificate authorities and the proxy, which Go reads from the environment the process
was *started* with (see :mod:`config.daemon`), and the root key of WhatsApp's Noise certificates, a variable of the
library. It is overwritten in memory only, and only when the process talks to a proxy on the loopback interface.
"""

from __future__ import annotations

import ctypes
import ipaddress
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from config.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

#: whatsmeow's ``WACertPubKey`` (``handshake.go``): the root of WhatsApp's Noise certificates.
_NOISE_ROOT = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
#: Part of the name of the library's file, as the process's memory map shows it.
_LIBRARY = "neonize-"
_MAPS = Path("/proc/self/maps")


@dataclass(frozen=True)
class KeepAlive:
    """The library's keep-alive settings, in seconds (``keepalive.go``)."""

    response_seconds: float = 10.0
    shortest_interval_seconds: float = 20.0
    longest_interval_seconds: float = 30.0
    give_up_seconds: float = 180.0

    def as_variables(self) -> bytes:
        """Return the settings as they stand in memory: four consecutive numbers of nanoseconds."""
        seconds = (
            self.response_seconds,
            self.shortest_interval_seconds,
            self.longest_interval_seconds,
            self.give_up_seconds,
        )
        return struct.pack("<4q", *(int(value * 1e9) for value in seconds))


def is_loopback(proxy: str | None) -> bool:
    """Return whether ``proxy`` is a URL whose host is an address of the loopback interface."""
    if not proxy:
        return False
    try:
        return ipaddress.ip_address(urlsplit(proxy).hostname or "").is_loopback
    except ValueError:
        return False


def replace_noise_root(root: bytes, *, proxy: str | None) -> None:
    """Make the library, already loaded into this process, trust ``root`` instead of WhatsApp's Noise root.

    Args:
        root: the stand-in's public key, 32 bytes.
        proxy: the proxy that every connection of this process goes through.

    Raises:
        ConfigurationInvalid: ``proxy`` is not on the loopback interface, or the library is not as expected.
    """
    if not is_loopback(proxy):
        raise ConfigurationInvalid("The simulator's keys are only used with a proxy on 127.0.0.1.")
    if len(root) != len(_NOISE_ROOT):
        raise ConfigurationInvalid("The simulator's Noise root is not 32 bytes long.")
    _overwrite(_NOISE_ROOT, root)


def replace_keep_alive(settings: KeepAlive) -> None:
    """Change the library's keep-alive settings in this process, for tests that cannot wait minutes.

    The longest interval must be greater than the shortest, or Go panics.
    """
    _overwrite(KeepAlive().as_variables(), settings.as_variables())


def _overwrite(old: bytes, new: bytes) -> None:
    addresses = list(_places_of(old))
    if len(addresses) != 1:
        raise ConfigurationInvalid(
            f"The WhatsApp library holds the expected variable {len(addresses)} times instead of once.",
            "The simulator works on Linux, with the neonize version that requirements.lock names.",
        )
    ctypes.memmove(addresses[0], new, len(new))


def _places_of(value: bytes) -> Iterator[int]:
    """Yield the addresses of ``value`` in the library's variables."""
    if not _MAPS.exists():
        return
    for line in _MAPS.read_text(encoding="utf-8").splitlines():
        span, permissions, *rest = line.split(maxsplit=5)
        if "w" not in permissions or len(rest) < 4 or _LIBRARY not in rest[3]:
            continue
        start, end = (int(number, 16) for number in span.split("-"))
        memory = ctypes.string_at(start, end - start)
        position = memory.find(value)
        while position >= 0:
            yield start + position
            position = memory.find(value, position + 1)
