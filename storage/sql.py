"""The SQL of this package: read from ``queries/*.sql``, where each statement has a name and a comment."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The line that names the statement under it. Lines of comment may stand above or below it.
_NAME_LINE = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_COMMENT_LINE = re.compile(r"^\s*--.*$\n?", re.MULTILINE)


@cache
def queries(group: str) -> Mapping[str, str]:
    """Return the named statements of ``queries/<group>.sql``.

    Args:
        group: the file's name without its ending, as ``devices``.

    Returns:
        A read-only mapping of statement names to SQL, without comments and closing semicolon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file names a statement twice, or one has no text.
    """
    text = (files("storage") / "queries" / f"{group}.sql").read_text(encoding="utf-8")
    return MappingProxyType(parse_queries(text))


def parse_queries(text: str) -> dict[str, str]:
    """Split the text of a query file into its named statements (see :func:`queries`)."""
    _, *parts = _NAME_LINE.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statement = _COMMENT_LINE.sub("", body).strip().removesuffix(";").rstrip()
        if not statement:
            raise ValueError(f"The query {name} has no statement.")
        if name in statements:
            raise ValueError(f"The query {name} is defined twice.")
        statements[name] = statement
    return statements
