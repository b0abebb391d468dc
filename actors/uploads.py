"""Uploaded files: kept under the home until nobody needs them any more, and read where a device sends them.

A message names one as ``upload:ID``. The file lies in ``uploads/ID`` beside ``uploads/ID.json``, which says what it is;
both are for their owner's eyes alone. There is no row: what refers to a file is the message's own row.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from config.home import Home

#: How a message refers to an uploaded file.
SCHEME = "upload:"
#: How long a file is kept that no unfinished message refers to, since it was last named, in seconds.
KEPT_SECONDS = 24 * 3600.0
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Upload:
    """An uploaded file: its id, its name, its type as the uploader told it, and its size in bytes."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str


def new_upload_id() -> str:
    """Return an id that nobody guesses."""
    return secrets.token_hex(16)


def id_in(media_url: str) -> str | None:
    """Return the id of the uploaded file that a message's media names, or None when it names none."""
    upload_id = media_url.removeprefix(SCHEME)
    return upload_id if media_url.startswith(SCHEME) and _ID.fullmatch(upload_id) else None


def path_of(home: Home, upload_id: str) -> Path:
    """Return where an uploaded file lies."""
    return home.uploads / upload_id


def keep(home: Home, upload: Upload) -> None:
    """Note what a file that was written to its path is; from now on messages may name it."""
    note = home.uploads / f"{upload.id}.json"
    fresh = note.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(upload), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(note)


def find(home: Home, upload_id: str) -> Upload | None:
    """Return what an uploaded file is, or None when there is none of that id (any more)."""
    if not _ID.fullmatch(upload_id):
        return None
    try:
        found = Upload(**json.loads((home.uploads / f"{upload_id}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if path_of(home, upload_id).is_file() else None


def named_now(home: Home, upload_id: str) -> None:
    """Note that a message names a file: it is kept for a day from now on."""
    with suppress(OSError):
        os.utime(home.uploads / f"{upload_id}.json")


def stale(home: Home) -> Iterator[str]:
    """Yield the ids of files that nobody named lately, also of those whose upload was never finished."""
    before = time.time() - KEPT_SECONDS
    seen: dict[str, float] = {}
    with suppress(FileNotFoundError), os.scandir(home.uploads) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                upload_id = entry.name.split(".")[0]
                seen[upload_id] = max(seen.get(upload_id, 0.0), entry.stat().st_mtime)
    yield from (upload_id for upload_id, named_at in seen.items() if named_at < before)


def forget(home: Home, upload_id: str) -> None:
    """Delete an uploaded file, unless a message named it a moment ago."""
    note = home.uploads / f"{upload_id}.json"
    with suppress(FileNotFoundError):
        if note.stat().st_mtime > time.time() - KEPT_SECONDS:
            return
    for path in (note, note.with_suffix(".new"), path_of(home, upload_id)):
        path.unlink(missing_ok=True)


def bytes_kept(home: Home) -> int:
    """Return how many bytes all uploaded files have together."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(home.uploads) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
