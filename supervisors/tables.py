"""What the fleet's supervisor does in PostgreSQL: it learns which devices are its own, and ends or moves what is stuck.

Each look is brief. While PostgreSQL is away, nothing here raises: what runs goes on running.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from config.errors import StorageUnavailable
from config.logging import logger
from config.settings import Settings
from storage import devices, leases, outbox
from storage.database import Database
from supervisors.attention import ALERTING_CODES, Alerts
from supervisors.failover import reroute

#: How often the device table is read again, in case a hint was lost, in seconds.
_READ_DEVICES_SECONDS = 10.0
#: How soon it is read again when PostgreSQL did not answer, in seconds.
_READ_AGAIN_SECONDS = 1.0
#: How often stranded messages are looked for, in seconds.
_REROUTE_SECONDS = 2.0
#: Without a word from PostgreSQL for this long no device moves: its new shard could not read its row. In seconds.
_SILENCE_SECONDS = 5.0
#: A send of a removed device that has no outcome after this long will never have one, in seconds.
_REMOVED_SECONDS = 60.0
#: A holder of leases that cannot renew them disconnects its devices this long before they run out, in seconds.
_STEP_BACK_SECONDS = 15.0


@dataclass(frozen=True)
class Wanted:
    """Which devices this fleet hosts.

    Attributes:
        whatsapp: those on shards, those first that shall be placed first.
        by_platform: those of each platform.
    """

    whatsapp: tuple[int, ...]
    by_platform: dict[str, tuple[int, ...]]


class FleetTables:
    """The tables that the fleet goes by, and when PostgreSQL last answered (monotonic seconds).

    ``holder`` names this fleet in the leases of devices; ``shared``: other hosts use the database, too.
    """

    def __init__(self, database: Database, settings: Settings, holder: str) -> None:
        self._database = database
        self._settings = settings
        self._holder = holder
        #: A private server knows no other host; only a shared one needs a holder who steps back in time.
        self._shared = settings.database_url is not None
        self._alerts = Alerts()
        self._read_at = 0.0
        self._leased_at = time.monotonic()
        self._answered_at = 0.0
        self._rerouted_at = 0.0

    # --- which devices there are -------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether the device table was asked since the last word that it has changed."""
        return self._read_at > 0

    def read_soon(self) -> None:
        """Have the device table read again at the next look."""
        self._read_at = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether the device table should be read again."""
        return now - self._read_at > _READ_DEVICES_SECONDS or not self.asked

    def read(self, now: float, *, fresh: bool) -> Wanted | None:
        """Read the device table, and renew the leases; None while PostgreSQL is away.

        ``fresh``: nothing is placed yet, so the devices with messages waiting come first: they are spread evenly, and
        each shard opens its own first.
        """
        try:
            with self._database.transaction() as connection:
                platforms = devices.platforms(connection)
                alerting = devices.with_reasons(connection, ALERTING_CODES)
                whatsapp = [device_id for device_id, platform in platforms.items() if platform is None]
                ours = sorted(leases.hold(connection, self._holder, whatsapp))
                urgent = outbox.lanes_with_work(connection, ours) if fresh else []
                outbox.end_removed(connection, _REMOVED_SECONDS)
        except StorageUnavailable as error:
            logger().warning("The device table cannot be read", reason=error.sentence)
            self._read_at = now - _READ_DEVICES_SECONDS + _READ_AGAIN_SECONDS
            return None
        self._read_at = self._leased_at = now
        self._answered_at = time.monotonic()
        for alert in self._alerts.about(alerting):
            logger().error(f"🚨 {alert}")
        by_platform: dict[str, list[int]] = {}
        for device_id, platform in platforms.items():
            if platform is not None:
                by_platform.setdefault(platform, []).append(device_id)
        return Wanted(
            tuple(dict.fromkeys([*sorted(urgent), *ours])),
            {name: tuple(sorted(device_ids)) for name, device_ids in by_platform.items()},
        )

    # --- leases ------------------------------------------------------------------------------------------

    def leases_run_out(self, now: float) -> bool:
        """Return whether another host may soon take the devices: then this one has to let them go in time."""
        return self._shared and now - self._leased_at > leases.LEASE_SECONDS - _STEP_BACK_SECONDS

    def release_leases(self) -> None:
        """Let other hosts take the devices at once."""
        with suppress(StorageUnavailable), self._database.transaction() as connection:
            leases.release(connection, self._holder)

    # --- messages ----------------------------------------------------------------------------------------

    def reroute(self, now: float) -> None:
        """Let messages whose route is down go by another, and end those whose time ran out, if it is time to."""
        if now - self._rerouted_at <= _REROUTE_SECONDS:
            return
        self._rerouted_at = now
        with suppress(StorageUnavailable), self._database.transaction() as connection:
            outbox.expire_everywhere(connection)
            reroute(
                connection,
                patience=self._settings.failover_patience_seconds,
                attempts=self._settings.failover_attempts,
            )
            self._answered_at = time.monotonic()

    def are_silent(self, now: float) -> bool:
        """Return whether PostgreSQL has not answered for so long that it may be away."""
        return now - self._answered_at > _SILENCE_SECONDS
