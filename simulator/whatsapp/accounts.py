"""The tables of accounts: phones, the companions linked to them, and their Signal sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from simulator.whatsapp.curve import KeyPair
from simulator.whatsapp.records import Companion, Phone

SCHEMA = """
CREATE TABLE IF NOT EXISTS phones (
    number TEXT PRIMARY KEY, identity BLOB, signed_pre_key BLOB, signature BLOB, registration INTEGER,
    powered INTEGER, next_pre_key INTEGER DEFAULT 1
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS phone_pre_keys (
    number TEXT, id INTEGER, private BLOB, PRIMARY KEY (number, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS companions (
    number TEXT, device INTEGER, noise BLOB, identity BLOB, registration INTEGER, signed_pre_key_id INTEGER,
    signed_pre_key BLOB, signature BLOB, device_identity BLOB, has_history INTEGER,
    has_uploaded INTEGER, PRIMARY KEY (number, device)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS removed_companions (noise BLOB PRIMARY KEY, number TEXT, device INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS companion_pre_keys (
    number TEXT, device INTEGER, id INTEGER, public BLOB, PRIMARY KEY (number, device, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    number TEXT, address TEXT, record BLOB, PRIMARY KEY (number, address)
) WITHOUT ROWID;
"""


class Accounts:
    """Phones and companions. Nothing here commits by itself; the store's transaction does."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    # Phones

    def phone(self, number: str) -> Phone | None:
        """Return a phone, if it exists."""
        row = self._database.execute(
            "SELECT identity, signed_pre_key, signature, registration, powered FROM phones WHERE number = ?",
            (number,),
        ).fetchone()
        if row is None:
            return None
        return Phone(number, KeyPair(row[0]), KeyPair(row[1]), row[2], row[3], bool(row[4]))

    def numbers(self) -> list[str]:
        """Return the numbers of all phones."""
        return [row[0] for row in self._database.execute("SELECT number FROM phones ORDER BY number")]

    def add_phone(self, phone: Phone) -> None:
        """Remember a new phone."""
        self._database.execute(
            "INSERT INTO phones (number, identity, signed_pre_key, signature, registration, powered)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                phone.number,
                phone.identity.private,
                phone.signed_pre_key.private,
                phone.signature,
                phone.registration,
                phone.powered,
            ),
        )

    def power_phone(self, number: str, on: bool) -> None:
        """Switch a phone on or off."""
        self._database.execute("UPDATE phones SET powered = ? WHERE number = ?", (on, number))

    def add_phone_pre_key(self, number: str, private: bytes) -> int:
        """Remember a one-time key of a phone; return its id."""
        (identifier,) = self._database.execute(
            "UPDATE phones SET next_pre_key = next_pre_key % 16777214 + 1 WHERE number = ? RETURNING next_pre_key",
            (number,),
        ).fetchone()
        self._database.execute("INSERT OR REPLACE INTO phone_pre_keys VALUES (?, ?, ?)", (number, identifier, private))
        return int(identifier)

    def phone_pre_key(self, number: str, identifier: int) -> KeyPair | None:
        """Return a one-time key of a phone that was not used yet."""
        row = self._database.execute(
            "SELECT private FROM phone_pre_keys WHERE number = ? AND id = ?", (number, identifier)
        ).fetchone()
        return KeyPair(row[0]) if row else None

    def use_phone_pre_key(self, number: str, identifier: int) -> None:
        """Forget a one-time key: it was used."""
        self._database.execute("DELETE FROM phone_pre_keys WHERE number = ? AND id = ?", (number, identifier))

    # Companions

    def companion(self, number: str, device: int) -> Companion | None:
        """Return a companion, if it is linked."""
        row = self._database.execute(
            "SELECT * FROM companions WHERE number = ? AND device = ?", (number, device)
        ).fetchone()
        return _companion(row) if row else None

    def companions(self, number: str) -> list[Companion]:
        """Return the companions of a phone."""
        rows = self._database.execute("SELECT * FROM companions WHERE number = ? ORDER BY device", (number,))
        return [_companion(row) for row in rows]

    def save_companion(self, companion: Companion) -> None:
        """Remember a companion, or its new keys."""
        self._database.execute(
            "INSERT OR REPLACE INTO companions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                companion.number,
                companion.device,
                companion.noise,
                companion.identity,
                companion.registration,
                companion.signed_pre_key_id,
                companion.signed_pre_key,
                companion.signature,
                companion.device_identity,
                companion.has_history,
                companion.has_uploaded,
            ),
        )
        self._database.execute("DELETE FROM removed_companions WHERE noise = ?", (companion.noise,))

    def forget_companion(self, companion: Companion) -> None:
        """Unlink a companion; its Noise key is remembered as that of a logged-out one.

        Sessions with it stay: what it sent before may still wait for a phone that is off.
        """
        for table in ("companions", "companion_pre_keys", "queue"):
            self._database.execute(
                f"DELETE FROM {table} WHERE number = ? AND device = ?",  # noqa: S608  (names are ours)
                companion.key,
            )
        self._database.execute(
            "INSERT OR REPLACE INTO removed_companions VALUES (?, ?, ?)", (companion.noise, *companion.key)
        )

    def was_removed(self, noise: bytes) -> bool:
        """Tell whether a Noise key belongs to a companion that was logged out."""
        found = self._database.execute("SELECT 1 FROM removed_companions WHERE noise = ?", (noise,))
        return found.fetchone() is not None

    def devices_ever(self, number: str) -> int:
        """Return the highest device number a phone has ever given out."""
        (highest,) = self._database.execute(
            "SELECT max(device) FROM (SELECT device FROM companions WHERE number = :number"
            " UNION ALL SELECT device FROM removed_companions WHERE number = :number)",
            {"number": number},
        ).fetchone()
        return int(highest or 0)

    def add_companion_pre_keys(self, number: str, device: int, pre_keys: Iterable[tuple[int, bytes]]) -> None:
        """Remember one-time public keys a companion uploaded."""
        self._database.executemany(
            "INSERT OR REPLACE INTO companion_pre_keys VALUES (?, ?, ?, ?)",
            ((number, device, identifier, public) for identifier, public in pre_keys),
        )

    def companion_pre_keys(self, number: str, device: int) -> list[tuple[int, bytes]]:
        """Return the one-time keys of a companion that nobody has taken."""
        return self._database.execute(
            "SELECT id, public FROM companion_pre_keys WHERE number = ? AND device = ? ORDER BY id",
            (number, device),
        ).fetchall()

    def count_companion_pre_keys(self, number: str, device: int) -> int:
        """Return how many one-time keys of a companion are left."""
        (count,) = self._database.execute(
            "SELECT count(*) FROM companion_pre_keys WHERE number = ? AND device = ?", (number, device)
        ).fetchone()
        return int(count)

    def take_companion_pre_key(self, number: str, device: int) -> tuple[int, bytes] | None:
        """Take one one-time key of a companion away, if one is left."""
        row: tuple[int, bytes] | None = self._database.execute(
            "DELETE FROM companion_pre_keys WHERE number = :number AND device = :device AND id ="
            " (SELECT min(id) FROM companion_pre_keys WHERE number = :number AND device = :device)"
            " RETURNING id, public",
            {"number": number, "device": device},
        ).fetchone()
        return row

    # Signal sessions

    def session(self, number: str, address: str) -> bytes | None:
        """Return the sessions a phone has with the device at ``address`` (``number:device``)."""
        row = self._database.execute(
            "SELECT record FROM sessions WHERE number = ? AND address = ?", (number, address)
        ).fetchone()
        return row[0] if row else None

    def save_session(self, number: str, address: str, record: bytes) -> None:
        """Remember the sessions a phone has with the device at ``address``."""
        self._database.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (number, address, record))


def _companion(row: tuple[Any, ...]) -> Companion:
    """Return a row as a value; the columns are in the order of its fields, 0 and 1 stand for its flags."""
    return Companion(*row)
