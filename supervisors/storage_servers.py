"""PostgreSQL and PgBouncer as the watchdog keeps them: started before the actors, started again when they die."""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

from config.errors import SalamanderError, StorageUnavailable
from config.home import Home
from config.logging import logger
from config.settings import Settings
from storage.connection_cap import shard_connections
from storage.database import (
    SALAMANDER_DATABASE,
    STATEMENT_MILLISECONDS,
    WHATSMEOW_DATABASE,
    connect,
    database_url,
    whatsmeow_url,
)
from storage.embedded import EmbeddedPostgres
from storage.events import keep_clock
from storage.migrate import migrate
from storage.pgbouncer import PgBouncer, PooledDatabase, forget_pooler, locate_pgbouncer
from storage.restarts import Restart

#: Connections beyond the configured ones that the embedded server takes: people's, and those of a start.
_DIRECT_CONNECTIONS = 50
#: How long a statement of the WhatsApp library may take, in milliseconds: it has no deadlines of its own.
_LIBRARY_STATEMENT_MILLISECONDS = 60_000
#: How long a server that cannot be started is left alone, in seconds.
_PAUSE_SECONDS = 1.0


class Server(Protocol):
    """A server that is run as a child of this process."""

    def start(self) -> None:
        """Start it and return when it accepts connections."""

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status."""


class StorageServers:
    """The embedded server and the PgBouncer before it; neither, when the settings name a database."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._settings = settings
        self._postgres: EmbeddedPostgres | None = None
        self._pgbouncer: PgBouncer | None = None
        if settings.database_url is None:
            self._postgres = EmbeddedPostgres(
                home.postgres,
                programs=settings.postgres_programs,
                max_connections=settings.database_connections + _DIRECT_CONNECTIONS,
            )
            self._pgbouncer = _pgbouncer_before(home, settings)

    @property
    def postgres_pid(self) -> int | None:
        """The process id of the embedded server, if there is one."""
        return self._postgres.pid if self._postgres is not None else None

    def start(self) -> None:
        """Start the servers, and bring both schemas up to date.

        Raises:
            SalamanderError: PostgreSQL does not start or cannot be reached; or PgBouncer does not, and is asked for.
        """
        if self._postgres is not None:
            self._postgres.start()
            self._postgres.ensure_database(SALAMANDER_DATABASE)
            self._postgres.ensure_database(WHATSMEOW_DATABASE)
            forget_pooler(self._home.postgres)
        self._migrate()
        self._start_pgbouncer()

    def _migrate(self) -> None:
        url = database_url(self._home, self._settings)
        for name in migrate(url):
            logger().info("Applied a migration", migration=name)
        with connect(url) as connection:
            if keep_clock(connection):
                logger().warning("PostgreSQL was restored from a backup; the order of events goes on where it was")
        from actors.whatsapp.session import migrate_store  # noqa: PLC0415 - only the watchdog needs it

        migrate_store(whatsmeow_url(self._home, self._settings))

    def _start_pgbouncer(self) -> None:
        """Put PgBouncer before the embedded server; one that was only found may fail: then all connect directly."""
        if self._pgbouncer is not None:
            try:
                self._pgbouncer.start()
            except StorageUnavailable as error:
                if self._settings.pgbouncer != "auto":
                    raise
                logger().warning("PgBouncer is not used", reason=error.sentence)
                self._pgbouncer.stop()
                self._pgbouncer = None
        if self._pgbouncer is None and self._postgres is not None:
            shard_connections(self._settings.database_connections, self._settings.max_shards)  # refuses what cannot be

    def keep(self) -> list[Restart]:
        """Start again what died; return what was. One that cannot be started is tried again at the next call."""
        restarts: list[Restart] = []
        servers: list[tuple[str, str, str, Server | None]] = [
            ("PostgreSQL", "postgres", "embedded", self._postgres),
            ("PgBouncer", "pgbouncer", "pgbouncer", self._pgbouncer),
        ]
        for title, what, name, server in servers:
            if server is None or server.poll() is None:
                continue
            began = time.monotonic()
            logger().warning(f"⚠️ {title} is down", status=server.poll())
            try:
                server.start()
            except SalamanderError as error:
                logger().error(f"{title} cannot be started", reason=error.sentence)
                time.sleep(_PAUSE_SECONDS)
                break
            took = time.monotonic() - began
            restarts.append(Restart(what, name, "exited", "Its process ended.", "started it again", "ok", took))
        return restarts

    def stop(self) -> None:
        """Stop the servers."""
        if self._pgbouncer is not None:
            self._pgbouncer.stop()
        if self._postgres is not None:
            with contextlib.suppress(SalamanderError):
                self._postgres.stop()


def _pgbouncer_before(home: Home, settings: Settings) -> PgBouncer | None:
    program = locate_pgbouncer(settings.pgbouncer)
    if program is None:
        return None
    return PgBouncer(
        home.postgres,
        program,
        (
            PooledDatabase(SALAMANDER_DATABASE, STATEMENT_MILLISECONDS),
            PooledDatabase(WHATSMEOW_DATABASE, _LIBRARY_STATEMENT_MILLISECONDS),
        ),
        connections=settings.database_connections,
        log_file=home.logs / "pgbouncer.log",
    )
