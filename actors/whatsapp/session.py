"""The sessions that whatsmeow stores: looked at by SQL, since the library crashes or guesses where we must know.

whatsmeow keeps its tables in a database of its own (it ignores ``search_path``). All functions here are synchronous
and take a psycopg connection to that database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg

from actors.whatsapp.addresses import LID_SERVER, parse_address
from actors.whatsapp.loopback import is_loopback
from config.errors import StorageUnavailable
from config.logging import scrub
from storage.database import ThroughPooler
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

_SQL = queries("whatsmeow")
#: The advisory lock of the migration: any number that nothing else in that database uses.
_MIGRATION_LOCK = 0x5A1A_3A17
#: How long a migration may take (0.6 s for an empty database).
_MIGRATION_SECONDS = 120
#: How long whatsmeow's driver may take to connect. Without it, a silent server blocks every client of the process.
_CONNECT_SECONDS = 5
#: After how many milliseconds the server closes a connection of whatsmeow's that is idle: its pools never shrink
#: below two a client, and are never closed.
_IDLE_MILLISECONDS = 2000

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class StoredSession:
    """A stored login: the companion, its LID (may be empty), and how many contacts' Signal sessions it has."""

    jid: str
    lid: str
    contacts: int


def store_url_for_library(url: str, *, pooled: bool = False) -> str:
    """Return a libpq URL with what whatsmeow's driver (Go's lib/pq) needs besides.

    Args:
        url: ``postgres://…`` or ``postgresql://…``, over TCP or a unix socket; what it sets itself is kept.
        pooled: whether it leads through PgBouncer in transaction mode.

    Raises:
        StorageUnavailable: it is not such a URL (keyword/value strings are not understood by the library).
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise StorageUnavailable(
            "whatsmeow's database must be given as a URL that begins with postgres://.",
            "Correct whatsmeow_database_url.",
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    wanted = {"connect_timeout": str(_CONNECT_SECONDS)}
    # libpq falls back to a plain connection by itself; lib/pq insists on TLS unless told otherwise.
    if parts.hostname == "localhost" or is_loopback(url):
        wanted["sslmode"] = "disable"
    if pooled:
        # Prepared statements would meet another server connection each time.
        wanted["binary_parameters"] = "yes"
    else:
        wanted["idle_session_timeout"] = str(_IDLE_MILLISECONDS)
        # The stored secrets are evidence; a crash of the server must not lose what was told to be stored.
        wanted["synchronous_commit"] = "on"
    query = urlencode({**wanted, **given}, quote_via=quote, safe="/")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def stored_session(connection: Connection, jid: str) -> StoredSession | None:
    """Return the login stored for a companion (``user:device@s.whatsapp.net``), or None: it must be paired."""
    row = connection.execute(_SQL["stored_session"], {"jid": jid}).fetchone()
    if row is None:
        return None
    found, lid, contacts = _values(row)
    return StoredSession(found, lid, contacts)


def message_ids_of(connection: Connection, secrets: Sequence[bytes]) -> dict[bytes, str]:
    """Return the message ID that each secret was stored with; a secret that was not stored is not in it.

    The library stores a secret before it sends, so one that is missing proves that its message was not sent, unless
    the library said that it could not store it (``on_secret_not_stored``).
    """
    rows = connection.execute(_SQL["message_ids"], {"secrets": list(secrets)}).fetchall()
    return {bytes(key): message_id for key, message_id in map(_values, rows)}


def forget_secrets(connection: Connection, secrets: Sequence[bytes]) -> int:
    """Delete the rows of these secrets; return how many there were. Nothing else ever prunes them."""
    return connection.execute(_SQL["forget_secrets"], {"secrets": list(secrets)}).rowcount


def phone_of_lid(connection: Connection, lid: str) -> str | None:
    """Return the phone number (digits) behind a LID (a JID, with or without a device), if the store knows it."""
    try:
        address = parse_address(lid)
    except ValueError:
        return None
    if address.server != LID_SERVER:
        return None
    row = connection.execute(_SQL["phone_of_lid"], {"lid": address.user}).fetchone()
    return str(_values(row)[0]) if row is not None else None


def delete_session(connection: Connection, jid: str) -> bool:
    """Delete a stored login and everything that belongs to it; return whether there was one.

    WhatsApp does not learn of it: a companion that is still linked stays so on the phone.
    """
    return connection.execute(_SQL["delete_session"], {"jid": jid}).rowcount > 0


def migrate_store(url: str) -> None:
    """Create or update whatsmeow's tables, once, before any client opens; several may call it at once.

    The library does it in a process of its own, since it never closes the connections it took for that.

    Args:
        url: whatsmeow's database as a libpq URL.

    Raises:
        StorageUnavailable: the database cannot be reached, or the library refuses it.
    """
    key = {"key": _MIGRATION_LOCK}
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS) as connection:
            connection.execute(_SQL["lock_migration"], key)
            _migrate_in_a_process(url)
            connection.execute(_SQL["index_secrets"])
    except psycopg.Error as error:
        raise StorageUnavailable(
            f"whatsmeow's database did not answer ({type(error).__name__}).", "Look whether PostgreSQL runs."
        ) from error


def _migrate_in_a_process(url: str) -> None:
    # In an empty directory: the library tries the URL as a file name first.
    with tempfile.TemporaryDirectory() as directory:
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "actors.whatsapp.migration"],
                input=store_url_for_library(url, pooled=isinstance(url, ThroughPooler)),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=_MIGRATION_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StorageUnavailable("whatsmeow's tables could not be created in time.") from None
    if finished.returncode != 0:
        reason = scrub((finished.stderr.strip().splitlines() or ["no reason given"])[-1])
        raise StorageUnavailable(f"whatsmeow's tables could not be created: {reason}.")


def _values(row: Any) -> tuple[Any, ...]:
    """Return a row's values, whether the connection makes tuples or dictionaries of them."""
    return tuple(row.values()) if isinstance(row, dict) else tuple(row)
