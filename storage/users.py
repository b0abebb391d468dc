"""The dashboard's users and their sessions as rows. Passwords, tokens and codes arrive hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from config.errors import NotFound, Refused
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from storage.database import Connection, Row

#: What users may be: a viewer sees everything and changes nothing.
ROLES = ("operator", "viewer")

_SQL = queries("users")


@dataclass(frozen=True)
class User:
    """Who is signed in."""

    name: str
    role: str

    @property
    def is_operator(self) -> bool:
        """Whether this user may change anything."""
        return self.role == "operator"


@dataclass(frozen=True)
class Expiry:
    """When sessions end: unused for ``idle_seconds``, or ``longest_seconds`` after the sign-in."""

    idle_seconds: float
    longest_seconds: float

    @property
    def values(self) -> dict[str, float]:
        """The values as queries take them."""
        return {"idle_seconds": self.idle_seconds, "longest_seconds": self.longest_seconds}


@dataclass(frozen=True)
class Failures:
    """How often a subject failed to sign in lately, and when it did so first."""

    count: int
    oldest: datetime


def add(connection: Connection, name: str, role: str, password_hash: str) -> None:
    """Add a user.

    Raises:
        Refused: the name is taken.
    """
    values = {"name": name, "role": role, "password_hash": password_hash}
    try:
        connection.execute(_SQL["add"], values)
    except psycopg.errors.UniqueViolation:
        raise Refused(
            f"There is a user {name!r} already.", "For another password: run.py user password NAME", code="name_taken"
        ) from None


def all_users(connection: Connection) -> list[Row]:
    """Return every user: ``name``, ``role``, ``created_at`` and ``seen_at`` (None: not signed in)."""
    return [
        {key: row[key] for key in ("name", "role", "created_at", "seen_at")} for row in connection.execute(_SQL["all"])
    ]


def exist(connection: Connection) -> bool:
    """Return whether there is any user."""
    row = connection.execute(_SQL["any"]).fetchone()
    return row is not None and bool(row["found"])


def by_name(connection: Connection, name: str) -> Row | None:
    """Return a user with ``id``, ``name``, ``role`` and ``password_hash``, or None."""
    return connection.execute(_SQL["by_name"], {"name": name}).fetchone()


def set_password(connection: Connection, name: str, password_hash: str) -> None:
    """Give a user another password and end the sessions it has.

    Raises:
        NotFound: there is no such user.
    """
    _found(connection.execute(_SQL["set_password"], {"name": name, "password_hash": password_hash}).fetchone(), name)


def rehash(connection: Connection, user_id: int, password_hash: str) -> None:
    """Store the same password under a new hash; sessions go on."""
    connection.execute(_SQL["rehash"], {"user_id": user_id, "password_hash": password_hash})


def remove(connection: Connection, name: str) -> None:
    """Remove a user and end its sessions.

    Raises:
        NotFound: there is no such user.
    """
    _found(connection.execute(_SQL["remove"], {"name": name}).fetchone(), name)


def _found(row: Row | None, name: str) -> None:
    if row is None:
        raise NotFound(f"There is no user {name!r}.", "See run.py user list.", code="unknown_user")


# --- sessions --------------------------------------------------------------------------------------------


def open_session(connection: Connection, user_id: int, token_hash: bytes, expiry: Expiry) -> None:
    """Begin a session, and forget those that expired."""
    connection.execute(_SQL["forget_sessions"], expiry.values)
    connection.execute(_SQL["open_session"], {"user_id": user_id, "token_hash": token_hash})


def session(connection: Connection, token_hash: bytes, expiry: Expiry) -> User | None:
    """Return whose session this is, and note that it is in use; None: nobody's (any more)."""
    row = connection.execute(_SQL["session"], {"token_hash": token_hash, **expiry.values}).fetchone()
    if row is None:
        return None
    if row["stale"]:
        connection.execute(_SQL["touch_session"], {"token_hash": token_hash})
    return User(row["name"], row["role"])


def close_session(connection: Connection, token_hash: bytes) -> None:
    """End a session."""
    connection.execute(_SQL["close_session"], {"token_hash": token_hash})


# --- failures --------------------------------------------------------------------------------------------


def lock_subjects(connection: Connection, subjects: Sequence[bytes]) -> None:
    """Let nobody else try these names and addresses until the transaction ends."""
    connection.execute(_SQL["lock_subjects"], {"subjects": list(subjects)})


def failures(connection: Connection, subjects: Sequence[bytes], window_seconds: float) -> dict[bytes, Failures]:
    """Return how often each of these subjects failed within the window."""
    rows = connection.execute(_SQL["failures"], {"subjects": list(subjects), "window_seconds": window_seconds})
    return {bytes(row["subject"]): Failures(row["failures"], row["oldest"]) for row in rows}


def note_failures(connection: Connection, subjects: Sequence[bytes], window_seconds: float) -> None:
    """Note a failure of each subject, and forget those that no longer count."""
    connection.execute(_SQL["forget_failures"], {"window_seconds": window_seconds})
    connection.execute(_SQL["note_failure"], {"subjects": list(subjects)})


def take_back(connection: Connection, *, name: bytes, address: bytes) -> None:
    """Take back the failure that a successful try was noted as; its name's earlier ones are forgotten."""
    connection.execute(_SQL["clear_name"], {"subject": name})
    connection.execute(_SQL["take_back"], {"subject": address})


# --- the first sign-in -----------------------------------------------------------------------------------


def set_first_code(connection: Connection, code_hash: bytes, seconds: float, tries: int) -> None:
    """Let one who knows the code become the first user, for so long and with so many tries."""
    connection.execute(_SQL["set_first_code"], {"code_hash": code_hash, "seconds": seconds, "tries": tries})


def try_first_code(connection: Connection) -> bytes | None:
    """Use up one try and return the code's hash; None: there is none that may be tried."""
    row = connection.execute(_SQL["try_first_code"]).fetchone()
    return None if row is None else bytes(row["code_hash"])


def forget_first_code(connection: Connection) -> None:
    """Let nobody in by a code any more."""
    connection.execute(_SQL["forget_first_code"])
