"""What is said of media beside its address, for platforms that want a name and a type of their own."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from actors.platforms.contract import PlatformMessage

#: The type of media whose name tells none.
_TYPES = {"image": "image/jpeg", "document": "application/octet-stream", "video": "video/mp4", "audio": "audio/mpeg"}
_SUFFIXES = {"image": "jpg", "document": "bin", "video": "mp4", "audio": "mp3"}


def file_name_of(message: PlatformMessage) -> str:
    """Return the name under which people get the file; it always has a suffix."""
    name = message.media_name or unquote(urlsplit(message.media_url).path.rpartition("/")[2])
    name = "".join(character for character in name if character.isprintable())[:200]
    return name if "." in name.strip(".") else f"{name.strip('.') or 'file'}.{_SUFFIXES[message.kind]}"


def mime_type_of(message: PlatformMessage) -> str:
    """Return the media's type as its name tells it, where that agrees with the kind."""
    guessed = mimetypes.guess_type(file_name_of(message))[0]
    if guessed is None or (message.kind != "document" and not guessed.startswith(message.kind)):
        return _TYPES[message.kind]
    return guessed
