"""Builds the WhatsApp message for what is to be sent: text as it is, media uploaded first."""

from __future__ import annotations

import asyncio
import io
import mimetypes
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from actors.whatsapp.events import Content, NotSent, SendRefused

if TYPE_CHECKING:
    from actors.whatsapp.binding import Binding

#: The longest side of a thumbnail, in pixels, and the quality it is compressed with: WhatsApp shows it blurred.
_THUMBNAIL_SIDE = 100
_THUMBNAIL_QUALITY = 50
#: Images with more pixels than this get no thumbnail: decoding one would take hundreds of megabytes.
_THUMBNAIL_LARGEST_PIXELS = 40_000_000
#: What each kind's files are called when their content does not tell a type that fits.
_USUAL_TYPES = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/ogg"}


async def build_message(binding: Binding, neonize: Any, content: Content, secret: bytes) -> Any:
    """Return the protobuf message for ``content``, carrying ``secret`` as its message secret.

    WhatsApp's audio messages have no caption, so audio with one is sent as a document of that audio type.

    Raises:
        SendRefused: the content can never be sent.
        NotSent: the upload failed.
    """
    # A lone surrogate is no character: it cannot be encoded, and nothing of it was ever written by a person.
    if any("\ud800" <= character <= "\udfff" for character in content.body):
        raise SendRefused("text_invalid", "The text holds characters that cannot be encoded.")
    message = binding.messages.Message()
    if content.kind == "text":
        # Anything but the plain field would make the library look for mentions and links in the text.
        message.conversation = content.body
    elif content.kind in {"image", "video", "audio", "document"}:
        await _add_media(binding, neonize, content, message)
    else:
        raise SendRefused("kind_unknown", f"There is no kind of message called {content.kind}.")
    message.messageContextInfo.messageSecret = secret
    return message


async def _add_media(binding: Binding, neonize: Any, content: Content, message: Any) -> None:
    if not content.media:
        raise SendRefused("media_empty", "The media file is empty.")
    kind = "document" if content.kind == "audio" and content.body else content.kind
    media_type = await asyncio.to_thread(_mime_type, content)
    try:
        uploaded = await neonize.upload(content.media, binding.media_type(kind))
    except binding.aioze.UploadError as error:
        raise NotSent("upload_failed", f"The media could not be uploaded: {error}.") from error
    part = getattr(message, f"{kind}Message")
    part.URL = uploaded.url
    part.directPath = uploaded.DirectPath
    part.mediaKey = uploaded.MediaKey
    part.mediaKeyTimestamp = int(time.time())
    part.fileEncSHA256 = uploaded.FileEncSHA256
    part.fileSHA256 = uploaded.FileSHA256
    part.fileLength = uploaded.FileLength
    part.mimetype = media_type
    if kind != "audio" and content.body:
        part.caption = content.body
    if kind == "document":
        part.fileName = part.title = _file_name(content, media_type)
    if kind == "image":
        await asyncio.to_thread(_add_thumbnail, content.media, part)


def _mime_type(content: Content) -> str:
    """Return the media's type by its content; a generic answer gives way to what the name or kind suggests."""
    import magic  # noqa: PLC0415  # python-magic finds libmagic only after the binding has loaded it

    found = str(magic.from_buffer(content.media[:65536], mime=True))
    by_name = mimetypes.guess_type(content.media_name)[0]
    if content.kind == "document":
        return by_name if by_name and found in {"application/octet-stream", "text/plain"} else found
    if found.startswith(f"{content.kind}/"):
        return found
    return by_name if by_name and by_name.startswith(f"{content.kind}/") else _USUAL_TYPES[content.kind]


def _file_name(content: Content, media_type: str) -> str:
    """Return the name a document is shown under, without any path."""
    name = PurePath(content.media_name.replace("\\", "/")).name
    return name or f"{content.kind}{mimetypes.guess_extension(media_type) or ''}"


def _add_thumbnail(media: bytes, part: Any) -> None:
    """Add the image's size and a thumbnail, if it is an image that can be read; it is sent in any case."""
    from PIL import Image  # noqa: PLC0415  # loaded with the binding, needed for images only

    try:
        with Image.open(io.BytesIO(media)) as image:
            part.width, part.height = image.size
            if image.width * image.height > _THUMBNAIL_LARGEST_PIXELS:
                return
            image.draft("RGB", (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
            small = image.convert("RGB")
            small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
            encoded = io.BytesIO()
            small.save(encoded, "JPEG", quality=_THUMBNAIL_QUALITY)
            part.JPEGThumbnail = encoded.getvalue()
    except Exception:  # noqa: BLE001  # decoders raise anything on a damaged file, and a thumbnail is a courtesy
        return
