"""The stand-ins there are: a module of this package that binds ``STAND_IN`` is one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from simulator import platforms
from simulator.platforms.stand_in import StandIn

#: Modules that import this one, or are no stand-in for certain.
_MACHINERY = frozenset({"callbacks", "faults", "http", "rates", "records", "registry", "server", "stand_in"})


@cache
def stand_ins() -> tuple[type[StandIn], ...]:
    """Return every stand-in, in the order of their names."""
    found: list[type[StandIn]] = []
    for module in pkgutil.iter_modules(platforms.__path__):
        if module.name in _MACHINERY:
            continue
        stand_in = getattr(importlib.import_module(f"{platforms.__name__}.{module.name}"), "STAND_IN", None)
        if isinstance(stand_in, type) and issubclass(stand_in, StandIn):
            found.append(stand_in)
    return tuple(sorted(found, key=lambda each: each.name))
