"""The lanes of devices by name, as the router remembers them: looking one up costs as much as writing a message down.

A lane never changes while its device stands; that the device still stands is checked by the statement that accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import devices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.database import Connection
    from storage.devices import DeviceLane


class Directory:
    """Remembers lanes by name until it is told that one is gone."""

    def __init__(self) -> None:
        self._lanes: dict[str, DeviceLane] = {}

    def find(self, connection: Connection, names: Iterable[str]) -> dict[str, DeviceLane]:
        """Return the lanes of these names; those that are not remembered are looked up together."""
        wanted = set(names)
        unknown = wanted - self._lanes.keys()
        if unknown:
            self._lanes |= devices.lanes_by_name(connection, unknown)
        return {name: self._lanes[name] for name in wanted if name in self._lanes}

    def forget(self, name: str) -> None:
        """Look this one up again."""
        self._lanes.pop(name, None)
