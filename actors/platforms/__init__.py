"""Platforms: WhatsApp senders reached over HTTP, each described by one pure contract module in this package.

A module that binds ``CONTRACT`` is a platform, named after its file: adding one means one file and its test.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from actors.platforms.contract import PlatformContract
from config.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Modules of this package that are no platform; they are not imported just to find that out.
_MACHINERY = frozenset(
    {
        "__main__",
        "accounts",
        "actor",
        "breakers",
        "callbacks",
        "checks",
        "cloud_api",
        "cloud_api_errors",
        "connections",
        "contract",
        "dispatcher",
        "documentation",
        "documented",
        "doubts",
        "files",
        "gateway_description",
        "limits",
        "outcomes",
        "pace",
        "replies",
        "templates",
        "transport",
        "verdicts",
        "webhooks",
        "workers",
    }
)


@cache
def contracts() -> Mapping[str, PlatformContract]:
    """Return every platform by its name, in alphabetical order."""
    found: dict[str, PlatformContract] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda each: each.name):
        if module.name in _MACHINERY:
            continue
        contract = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CONTRACT", None)
        if isinstance(contract, PlatformContract):
            found[contract.name] = contract
    return MappingProxyType(found)


def contract_of(platform: str) -> PlatformContract:
    """Return the contract of ``platform``.

    Raises:
        NotFound: there is no such platform.
    """
    contract = contracts().get(platform)
    if contract is None:
        raise NotFound(f"There is no platform {platform!r}.", f"There are: {', '.join(contracts())}.")
    return contract
