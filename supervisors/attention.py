"""What needs attention: devices that crash their shard again and again, and states that only a person can end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from storage.devices import Device
from supervisors.policy import POLICIES

#: This many crashes of a shard with the same device inside the library, within so many seconds, are its doing.
_CRASHES = 3
_CRASH_WINDOW = 600.0
#: When more devices than this were inside at a crash, it says nothing about any of them.
_MOST_SUSPECTS = 3


#: The reasons for which a device needs a person. A device without a phone is not one: it never had any.
ALERTING_CODES = frozenset(code for code, policy in POLICIES.items() if policy.alert and code != "no_jid")


class Quarantine:
    """Which devices have a shard of their own, because they took their neighbours down."""

    def __init__(self) -> None:
        self._crashes: defaultdict[int, list[float]] = defaultdict(list)
        self._devices: set[int] = set()

    @property
    def devices(self) -> frozenset[int]:
        """The devices in quarantine."""
        return frozenset(self._devices)

    def crashed(self, suspects: Iterable[int], now: float) -> list[int]:
        """Note who was inside the library when a shard died (monotonic seconds); return who is quarantined for it."""
        inside = set(suspects)
        if len(inside) > _MOST_SUSPECTS:
            return []
        guilty = []
        for device_id in inside - self._devices:
            recent = [moment for moment in self._crashes[device_id] if now - moment < _CRASH_WINDOW]
            self._crashes[device_id] = [*recent, now]
            if len(self._crashes[device_id]) >= _CRASHES:
                self._devices.add(device_id)
                guilty.append(device_id)
        return guilty


class Alerts:
    """Tells once of each device that needs a person; of an outdated library once for the whole fleet."""

    def __init__(self) -> None:
        self._told: set[tuple[str, datetime | None]] = set()

    def about(self, devices: Iterable[Device]) -> list[str]:
        """Return the sentences that were not told yet."""
        sentences = []
        for device in devices:
            policy = POLICIES.get(device.reason_code)
            if policy is None or device.reason_code not in ALERTING_CODES or device.state != policy.state:
                continue
            fleet_wide = device.reason_code == "outdated"
            key = ("outdated", None) if fleet_wide else (device.name, device.state_since)
            if key in self._told:
                continue
            self._told.add(key)
            whom = "The whole fleet" if fleet_wide else device.name
            sentences.append(f"{whom}: {device.reason} {policy.advice.replace('NAME', device.name)}".strip())
        return sentences
