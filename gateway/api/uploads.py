"""/v1/uploads: a file to be sent by a WhatsApp device, written to disk as it arrives and never held in memory."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from actors import uploads
from actors.uploads import Upload
from config.errors import NotFound, Refused
from gateway.api.description import Text, problems
from gateway.callers import Reader, Sender
from gateway.context import Context, Here
from storage import outbox

_MEGABYTE = 1024 * 1024
#: What is written at once, in bytes: so much of a file is in memory.
_PIECE = 256 * 1024
#: All uploaded files together may be this many times as large as one, at most.
_ALL_TOGETHER = 64
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}

_routes = APIRouter(prefix="/uploads", tags=["uploads"])

UploadId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The upload's id.")]


class UploadedFile(BaseModel):
    """An uploaded file. Send it with `"media": {"upload": id}`."""

    id: str
    name: str
    content_type: str
    size: int = Field(description="In bytes.")
    sha256: str


def router(_context: Context) -> APIRouter:
    """Return the addresses of uploads."""
    return _routes


@_routes.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=UploadedFile,
    responses=problems(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.INSUFFICIENT_STORAGE
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": _FORM, "application/octet-stream": _BINARY},
        }
    },
)
async def upload_file(
    request: Request,
    here: Here,
    _caller: Sender,
    name: Annotated[Text | None, Query(max_length=200, description="The file name people see.")] = None,
) -> Any:
    """Upload a file, as the body or as the first file of a form. It is kept until it was sent, or for a day."""
    content_type, options = parse_options_header(request.headers.get("content-type") or "application/octet-stream")
    largest = here.settings.upload_megabytes * _MEGABYTE
    await anyio.to_thread.run_sync(_check_room, here, largest)
    upload_id = uploads.new_upload_id()
    file = await anyio.to_thread.run_sync(_NewFile, here, upload_id, largest)
    try:
        if content_type == b"multipart/form-data":
            form = _FormFile(options.get(b"boundary", b""), file)
            await _write(request, form.take, file)
            given_name, kind_of_content = form.name, form.content_type
            form.check()
        else:
            given_name, kind_of_content = "", content_type.decode("latin-1")
            await _write(request, file.take, file)
        chosen = _file_name(name or given_name, kind_of_content)
        upload = Upload(upload_id, chosen, _storable_type(kind_of_content), file.size, file.sha256.hexdigest())
        await anyio.to_thread.run_sync(file.finish)
        await anyio.to_thread.run_sync(uploads.keep, here.home, upload)
    except BaseException:
        file.give_up()
        raise
    return vars(upload)


@_routes.get("/{upload_id}", response_model=UploadedFile, responses=problems(HTTPStatus.NOT_FOUND))
async def show_upload(upload_id: UploadId, here: Here, _caller: Reader) -> Any:
    """Show an uploaded file."""
    found = await anyio.to_thread.run_sync(uploads.find, here.home, upload_id)
    if found is None:
        raise NotFound(f"There is no upload {upload_id}.", "Upload the file again.", code="unknown_upload")
    return vars(found)


class _NewFile:
    """A file that is being written. What is not finished is removed."""

    def __init__(self, here: Context, upload_id: str, largest: int) -> None:
        here.home.uploads.mkdir(mode=0o700, exist_ok=True)
        self._path = uploads.path_of(here.home, upload_id)
        self._largest = largest
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._waiting = bytearray()
        self.size = 0
        self.sha256 = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Take the next bytes; they are written by ``write``."""
        self.size += len(data)
        if self.size > self._largest:
            sentence = f"The file is larger than {self._largest // _MEGABYTE} MB."
            raise Refused(sentence, "Send a smaller one, or raise upload_megabytes.", code="too_large")
        self._waiting += data

    @property
    def is_due(self) -> bool:
        """Whether enough has come to be written."""
        return len(self._waiting) >= _PIECE

    def write(self) -> None:
        """Write what has come."""
        data, self._waiting = bytes(self._waiting), bytearray()
        self.sha256.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def finish(self) -> None:
        """Let the file be on the disk when this returns."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def give_up(self) -> None:
        """Remove what was written."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with suppress(FileNotFoundError):
            self._path.unlink()


class _FormFile:
    """The first file of a form; whatever else is in the form is passed over."""

    def __init__(self, boundary: bytes, file: _NewFile) -> None:
        if not boundary:
            raise _not_a_form()
        self.name = ""
        self.content_type = "application/octet-stream"
        self._file = file
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._inside = self._found = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._name_part,
                "on_header_value": self._value_part,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def take(self, data: bytes) -> None:
        """Take the next bytes of the form."""
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise _not_a_form() from None

    def check(self) -> None:
        """Refuse a form without a file."""
        if not self._found or self._inside:
            raise _not_a_form()

    def _begin(self) -> None:
        self._headers = {}

    def _name_part(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _value_part(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" in options and not self._found:
            self._found = self._inside = True
            self.name = options[b"filename"].decode("utf-8", "replace")
            content_type, _ = parse_options_header(self._headers.get(b"content-type", b""))
            self.content_type = content_type.decode("latin-1") or self.content_type

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._file.take(data[start:end])

    def _end(self) -> None:
        self._inside = False


def _not_a_form() -> Refused:
    sentence = "The form holds no file, or cannot be read."
    return Refused(sentence, "Send it as multipart/form-data with a file, or the file as the body.", code="bad_upload")


async def _write(request: Request, take: Callable[[bytes], None], file: _NewFile) -> None:
    """Write the body to the file, a piece at a time."""
    async for data in _pieces(request):
        take(data)
        if file.is_due:
            await _on_disk(file.write)
    await _on_disk(file.write)
    if file.size == 0:
        raise Refused("The file is empty.", "Upload one that is not.", code="bad_upload")


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for data in request.stream():
            yield data
    except ClientDisconnect:
        raise Refused("The upload broke off.", "Upload the file again.", code="bad_upload") from None


async def _on_disk(write: Callable[[], None]) -> None:
    try:
        await anyio.to_thread.run_sync(write)
    except OSError:
        raise _no_room() from None


def _check_room(here: Context, largest: int) -> None:
    if uploads.bytes_kept(here.home) > _ALL_TOGETHER * largest:
        raise _no_room()


def _no_room() -> Refused:
    return Refused("There is no room for more files.", "Wait until some were sent, or free disk space.", code="no_room")


def _file_name(given: str, content_type: str) -> str:
    """Return a file name to show: the last part of the given one, with a suffix that tells the type."""
    name = PurePosixPath(given.replace("\\", "/")).name
    name = "".join(character for character in name if character.isprintable())[:200] or "file"
    if "." not in name.strip("."):
        name += mimetypes.guess_extension(content_type) or ""
    return name


def _storable_type(content_type: str) -> str:
    return "".join(character for character in content_type if character.isascii() and character.isprintable())[:100]


async def tidy_uploads(context: Context) -> None:
    """Delete, now and every hour, the files that no unfinished message refers to and that nobody named for a day."""
    while True:
        with suppress(Exception):  # PostgreSQL may be away: then in an hour
            await _tidy(context)
        await anyio.sleep(3600)


async def _tidy(context: Context) -> None:
    stale = await anyio.to_thread.run_sync(lambda: list(uploads.stale(context.home)))
    if not stale:
        return
    named = await context.read(partial(outbox.unfinished_media, urls=[uploads.SCHEME + each for each in stale]))
    for upload_id in stale:
        if uploads.SCHEME + upload_id not in named:
            await anyio.to_thread.run_sync(uploads.forget, context.home, upload_id)
