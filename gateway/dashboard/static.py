"""The dashboard's own files: styles, scripts, the icon."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import Request, Response

from config.errors import NotFound

if TYPE_CHECKING:
    from fastapi import APIRouter

    from gateway.dashboard.desk import Desk

_FOLDER = files("gateway.dashboard") / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


def _load() -> dict[str, tuple[bytes, str]]:
    """Return every file with its media type. There are few, so that none is looked for by a stranger's words."""
    found = {}
    for prefix, folder in (("", _FOLDER), ("vendor/", _FOLDER / "vendor")):
        for entry in folder.iterdir():
            ending = entry.name[entry.name.rfind(".") :]
            if entry.is_file() and ending in _TYPES:
                found[prefix + entry.name] = (entry.read_bytes(), _TYPES[ending])
    return found


def add_routes(routes: APIRouter, _desk: Desk) -> None:
    """Add the addresses of the files."""
    known = _load()

    @routes.get("/static/{name:path}")
    async def static_file(request: Request, name: str) -> Response:
        del request
        if name not in known:
            raise NotFound("There is no such file.")
        content, media_type = known[name]
        return Response(
            content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"}
        )
