"""The tables of messages: what was accepted, what waits for whom, and the phones' inboxes."""

from __future__ import annotations

import sqlite3

from simulator.whatsapp.records import InboxEntry, Mail, Said

SCHEMA = """
CREATE TABLE IF NOT EXISTS accepted (
    number TEXT, device INTEGER, message_id TEXT, PRIMARY KEY (number, device, message_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undecryptable (
    number TEXT, sender_number TEXT, sender_device INTEGER, message_id TEXT,
    PRIMARY KEY (number, sender_number, sender_device, message_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mail (
    position INTEGER PRIMARY KEY, number TEXT, sender_number TEXT, sender_device INTEGER, message_id TEXT,
    destination TEXT, kind TEXT, ciphertext BLOB, device_identity BLOB, retry INTEGER
);
CREATE INDEX IF NOT EXISTS mail_number ON mail (number);
CREATE TABLE IF NOT EXISTS inbox (
    position INTEGER PRIMARY KEY, number TEXT, message_id TEXT, sender_number TEXT, sender_device INTEGER,
    destination TEXT, kind TEXT, text TEXT, secret TEXT, time REAL, sent INTEGER, media_sha256 TEXT,
    mimetype TEXT, file_name TEXT, media_error TEXT, read INTEGER DEFAULT 0
);
CREATE INDEX IF NOT EXISTS inbox_number ON inbox (number);
CREATE TABLE IF NOT EXISTS queue (
    position INTEGER PRIMARY KEY, number TEXT, device INTEGER, key TEXT, stanza BLOB
);
CREATE INDEX IF NOT EXISTS queue_companion ON queue (number, device, key);
CREATE TABLE IF NOT EXISTS said (message_id TEXT PRIMARY KEY, sender TEXT, text TEXT) WITHOUT ROWID;
"""


class Messages:
    """Mail, inboxes and queues. Nothing here commits by itself; the store's transaction does."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    # Messages

    def accept(self, sender: tuple[str, int], message_id: str) -> bool:
        """Remember that a message was accepted; return whether it is new."""
        cursor = self._database.execute("INSERT OR IGNORE INTO accepted VALUES (?, ?, ?)", (*sender, message_id))
        return cursor.rowcount == 1

    def mark_undecryptable(self, mail: Mail) -> None:
        """Remember that a phone asked for another try at a message."""
        self._database.execute(
            "INSERT OR IGNORE INTO undecryptable VALUES (?, ?, ?, ?)",
            (mail.number, *mail.sender, mail.message_id),
        )

    def settle_undecryptable(self, number: str, sender: tuple[str, int], message_id: str) -> bool:
        """Forget that a phone asked for another try; return whether it had."""
        cursor = self._database.execute(
            "DELETE FROM undecryptable WHERE number = ? AND sender_number = ? AND sender_device = ? AND message_id = ?",
            (number, *sender, message_id),
        )
        return cursor.rowcount == 1

    def post(self, mail: Mail) -> None:
        """Keep a ciphertext for a phone that is off."""
        self._database.execute(
            "INSERT INTO mail (number, sender_number, sender_device, message_id, destination, kind, ciphertext,"
            " device_identity, retry) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                mail.number,
                *mail.sender,
                mail.message_id,
                mail.destination,
                mail.kind,
                mail.ciphertext,
                mail.device_identity,
                mail.retry,
            ),
        )

    def collect_mail(self, number: str) -> list[Mail]:
        """Take all ciphertexts kept for a phone."""
        rows = self._database.execute(
            "SELECT sender_number, sender_device, message_id, destination, kind, ciphertext, device_identity, retry"
            " FROM mail WHERE number = ? ORDER BY position",
            (number,),
        ).fetchall()
        self._database.execute("DELETE FROM mail WHERE number = ?", (number,))
        return [Mail(number, (row[0], row[1]), *row[2:]) for row in rows]

    def count_mail(self) -> int:
        """Return how many ciphertexts wait for phones that are off."""
        (count,) = self._database.execute("SELECT count(*) FROM mail").fetchone()
        return int(count)

    def show(self, entry: InboxEntry) -> None:
        """Put a decrypted message into a phone's inbox."""
        self._database.execute(
            "INSERT INTO inbox (number, message_id, sender_number, sender_device, destination, kind, text, secret,"
            " time, sent, media_sha256, mimetype, file_name, media_error)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.number,
                entry.message_id,
                *entry.sender,
                entry.destination,
                entry.kind,
                entry.text,
                entry.secret,
                entry.time,
                entry.sent,
                entry.media_sha256,
                entry.mimetype,
                entry.file_name,
                entry.media_error,
            ),
        )

    def inbox(self, number: str | None, *, sent: bool) -> list[InboxEntry]:
        """Return the messages a phone (or, with None, every phone) received, or those its companions sent."""
        rows = self._database.execute(
            "SELECT number, message_id, sender_number, sender_device, destination, kind, text, secret, time, sent,"
            " media_sha256, mimetype, file_name, media_error FROM inbox"
            " WHERE (?1 IS NULL OR number = ?1) AND sent = ?2 ORDER BY position",
            (number, sent),
        )
        return [
            InboxEntry(
                number=row[0],
                message_id=row[1],
                sender=(row[2], row[3]),
                destination=row[4],
                kind=row[5],
                text=row[6],
                secret=row[7],
                time=row[8],
                sent=sent,
                media_sha256=row[10],
                mimetype=row[11],
                file_name=row[12],
                media_error=row[13],
            )
            for row in rows
        ]

    def unread(self, number: str, message_id: str | None) -> list[tuple[tuple[str, int], str]]:
        """Mark messages of companions as read; return (sender, message id) of those that were not."""
        rows = self._database.execute(
            "UPDATE inbox SET read = 1 WHERE number = ?1 AND NOT sent AND NOT read AND sender_device > 0"
            " AND (?2 IS NULL OR message_id = ?2) RETURNING sender_number, sender_device, message_id",
            (number, message_id),
        ).fetchall()
        return [((row[0], row[1]), row[2]) for row in rows]

    # Stanzas for companions

    def enqueue(self, companion: tuple[str, int], key: str, stanza: bytes) -> None:
        """Keep a stanza until the companion acknowledges it."""
        self._database.execute(
            "INSERT INTO queue (number, device, key, stanza) VALUES (?, ?, ?, ?)", (*companion, key, stanza)
        )

    def queued(self, companion: tuple[str, int]) -> list[bytes]:
        """Return the stanzas a companion has not acknowledged."""
        rows = self._database.execute(
            "SELECT stanza FROM queue WHERE number = ? AND device = ? ORDER BY position", companion
        )
        return [row[0] for row in rows]

    def dequeue(self, companion: tuple[str, int], key: str) -> bool:
        """Forget a stanza the companion acknowledged; return whether there was one."""
        cursor = self._database.execute(
            "DELETE FROM queue WHERE number = ? AND device = ? AND key = ?", (*companion, key)
        )
        return cursor.rowcount > 0

    def count_queued(self) -> int:
        """Return how many stanzas wait for companions."""
        (count,) = self._database.execute("SELECT count(*) FROM queue").fetchone()
        return int(count)

    def add_said(self, said: Said) -> None:
        """Remember what a phone said."""
        self._database.execute("INSERT INTO said VALUES (?, ?, ?)", (said.message_id, said.sender, said.text))

    def said(self, message_id: str) -> Said | None:
        """Return what a phone said in a message."""
        row = self._database.execute("SELECT * FROM said WHERE message_id = ?", (message_id,)).fetchone()
        return Said(*row) if row else None
