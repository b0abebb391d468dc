"""Log lines: one JSON object a line in the home's log file, readable words on a terminal.

Every process writes for itself (a shared logger process is a hundred times slower under Thespian), with one
``write`` per line to a file opened for appending, so that lines of several processes never mix.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog

#: Keys whose values are secrets wherever they appear.
_SECRET_KEYS = re.compile(
    r"(?i)token|secret|password|passwd|credential|authorization|api_?key|^key$|device_id$|dsn|database_url"
)
#: Credentials in the authority part of a URL.
_URL_USERINFO = re.compile(r"(?<=://)[^/?#\s]+@")
#: How often a writer looks whether the file was rotated away, in seconds.
_ROTATION_CHECK_SECONDS = 5.0


def scrub(text: str) -> str:
    """Return ``text`` without credentials that stand in a URL."""
    return _URL_USERINFO.sub("***@", text) if "://" in text else text


@functools.lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    """Return whether values under ``key`` are secrets; every line asks, and the keys are always the same few."""
    return _SECRET_KEYS.search(key) is not None


def _scrub_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if _is_secret(key):
            event[key] = "***"
        elif isinstance(value, str | BaseException):
            event[key] = scrub(str(value))
    return event


class LogFile:
    """A log file that several processes append to, and that may be rotated away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._inode = -1
        self._checked = 0.0

    def write(self, line: str) -> None:
        """Append one line. A full disk or a missing directory loses the line, never the process."""
        with contextlib.suppress(OSError):
            now = time.monotonic()
            if now - self._checked > _ROTATION_CHECK_SECONDS or self._descriptor < 0:
                self._checked = now
                self._open_again_if_rotated()
            os.write(self._descriptor, line.encode("utf-8", "replace"))

    def flush(self) -> None:
        """Do nothing: every line is written at once."""

    def _open_again_if_rotated(self) -> None:
        inode = self._path.stat().st_ino if self._path.exists() else -1
        if inode == self._inode and self._descriptor >= 0:
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._inode = os.fstat(self._descriptor).st_ino


def configure_logging(log_file: Path, level: str, actor: str, *, echo: bool = False) -> None:
    """Send this process's log lines to ``log_file``.

    Args:
        log_file: where lines go.
        level: the lowest level written (debug, info, warning, error).
        actor: the name each line carries as ``actor``.
        echo: also write readable lines to standard error (the watchdog in the foreground).
    """
    file = LogFile(log_file)
    json = structlog.processors.JSONRenderer(ensure_ascii=False, default=lambda value: scrub(str(value)))
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())

    def write(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if echo:
            with contextlib.suppress(OSError):
                sys.stderr.write(str(console(logger, method, dict(event))) + "\n")
        return str(json(logger, method, event))

    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _scrub_event,
            write,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=file),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    _bound.clear()
    _bound.update(actor=actor, pid=os.getpid())


_bound: dict[str, Any] = {}


def logger(**fields: Any) -> structlog.typing.FilteringBoundLogger:
    """Return this process's logger with ``fields`` on each line.

    Call it when a line is written, not at import: a forked actor configures its own logging.
    """
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(**{**_bound, **fields})
    return bound


def human_line(record: Mapping[str, Any]) -> str:
    """Return one record of the log file as a line for people."""
    moment = str(record.get("timestamp", ""))[:23].replace("T", " ")
    head = f"{moment} {record.get('level', '')!s:7} {record.get('actor', '')}"
    return f"{head}: {record.get('event', '')}  {human_details(record)}".rstrip()


def human_details(record: Mapping[str, Any]) -> str:
    """Return what a record tells besides when, who and what."""
    rest = {
        key: value
        for key, value in record.items()
        if key not in {"timestamp", "level", "event", "pid", "actor"} and value not in (None, "")
    }
    return "  ".join(f"{key}={value}" for key, value in rest.items())
