"""How tests look into requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from actors.platforms.contract import Request


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form-encoded request."""
    assert request.body is not None
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    return dict(parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(request.body)))


def json_of(request: Request) -> Any:
    """Return the JSON of a request."""
    assert request.body is not None
    assert request.headers["Content-Type"] == "application/json"
    return json.loads(request.body)
