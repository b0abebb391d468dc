"""Messages from a CSV file: read and checked as a whole before the first one is sent."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from actors.messages import Media, SendMessage
from actors.routes import check_route
from actors.validation import Problem, check_message
from config.errors import Refused

#: The columns there are; the first three must be there.
_COLUMNS = ("device", "to", "text", "media", "key")
_REQUIRED = frozenset(_COLUMNS[:2])


@dataclass(frozen=True)
class Line:
    """One line of the file: its number (the header is 1), and its message or what is wrong with it."""

    number: int
    message: SendMessage | None
    problem: str = ""


def read_csv(
    path: Path, *, device: str | None, known_devices: Mapping[str, str | None], region: str, loopback: bool
) -> list[Line]:
    """Read and check every line of a file with the columns device, to, text, and optionally media and key.

    Each message without a key gets one made from the file's content and its line, so that the same file sent
    again (after an interruption) sends nothing twice.

    Args:
        path: the file.
        device: the sender for files without a device column.
        known_devices: the devices there are, with their platforms (None: WhatsApp).
        region: the country of numbers written without one, or empty.
        loopback: whether media may come from this machine.

    Raises:
        Refused: the file as a whole is unusable.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.", "Name a readable file.", code="bad_csv") from None
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8.", "Save it as CSV UTF-8.", code="bad_csv") from None
    csv.field_size_limit(max(len(text), 131_072))  # a text that is too long is told as that, with its line
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        required = _REQUIRED - ({"device"} if device is not None else set())
        if not required <= set(header) or not {"text", "media"} & set(header):
            raise Refused(
                f"{path} lacks the header line.",
                "Its first line must name the columns: device,to,text",
                code="bad_csv",
            )
        if unknown := [name for name in header if name not in _COLUMNS]:
            raise Refused(
                f"{path} has the unknown column {unknown[0]!r}.",
                f"Known: {', '.join(_COLUMNS)}.",
                code="bad_csv",
            )
        if len(set(header)) < len(header):
            raise Refused(f"{path} names a column twice.", "Name each column once.", code="bad_csv")
        for cells in rows:
            number = rows.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                lines.append(Line(number, None, f"it has {len(cells)} columns, the header {len(header)}"))
                continue
            values = dict(zip(header, cells, strict=True))
            lines.append(_checked(number, values, device, fingerprint, known_devices, region, loopback))
    except csv.Error as error:
        raise Refused(f"{path} line {rows.line_num} is no CSV: {error}.", "Check its quotes.", code="bad_csv") from None
    if not lines:
        raise Refused(f"{path} holds no messages.", code="bad_csv")
    return lines


def _checked(
    number: int,
    values: dict[str, str],
    device: str | None,
    fingerprint: str,
    known_devices: Mapping[str, str | None],
    region: str,
    loopback: bool,
) -> Line:
    media = values.get("media", "").strip()
    message = SendMessage(
        device=values.get("device", "").strip() or device or "",
        to=values["to"].strip(),
        text=values.get("text", ""),
        media=Media(media) if media else None,
        idempotency_key=values.get("key", "").strip() or f"csv-{fingerprint}-{number}",
    )
    if message.device not in known_devices:
        return Line(number, None, f"there is no device named {message.device!r}")
    try:
        checked = check_message(message, region=region, loopback_media=loopback, now=datetime.now(UTC))
        check_route(known_devices[message.device], checked)
    except Problem as problem:
        return Line(number, None, problem.reason)
    return Line(number, message)
