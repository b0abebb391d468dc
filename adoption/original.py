"""The device table of the original system: WhatsApp devices by name, and platform accounts with tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.platforms import contract_of
from adoption.source import ORIGINAL_TABLE, Source
from config.errors import Refused
from storage.care import Limits

_COLUMNS = ("id", "device_name", "phone", "jid", "platform", "min_delay_seconds", "max_delay_seconds")
#: What the original writes where a device is no platform's.
_NO_PLATFORM = frozenset({"", "whatsapp", "null", "none"})


@dataclass(frozen=True)
class OriginalDevice:
    """One row: for a platform's device, ``jid`` is the account's token, so it is never shown."""

    id: int
    name: str
    phone: str
    jid: str = field(repr=False)
    platform: str | None
    limits: Limits | None


def read_originals(source: Source) -> list[OriginalDevice]:
    """Return the rows of the original's device table, in their order; none when there is no such table.

    Raises:
        Refused: the table lacks a column that is needed.
    """
    present = source.tables().get(ORIGINAL_TABLE)
    if present is None:
        return []
    if missing := {"id", "device_name", "jid"} - present:
        raise Refused(
            f"{ORIGINAL_TABLE} in {source.name} has no column {', '.join(sorted(missing))}.", code="source_differs"
        )
    columns = [name for name in _COLUMNS if name in present]
    rows = [dict(zip(columns, row, strict=True)) for row in source.rows(ORIGINAL_TABLE, columns)]
    return [_device(row) for row in sorted(rows, key=lambda row: int(row["id"]))]


def _device(row: dict[str, Any]) -> OriginalDevice:
    platform = str(row.get("platform") or "").strip().lower()
    return OriginalDevice(
        id=int(row["id"]),
        name=str(row["device_name"] or ""),
        phone="".join(filter(str.isdigit, str(row.get("phone") or ""))),
        jid=str(row["jid"] or "").strip(),
        platform=None if platform in _NO_PLATFORM else platform,
        limits=_limits(row.get("min_delay_seconds"), row.get("max_delay_seconds")),
    )


def _limits(shortest: Any, longest: Any) -> Limits | None:
    """Return a delay between two bounds as a gap and the jitter on it; None where the original set none."""
    try:
        least, most = float(shortest or 0), float(longest or 0)
    except (TypeError, ValueError):
        return None
    if least <= 0 and most <= 0:
        return None
    return Limits(gap_seconds=max(0.0, least), jitter_seconds=max(0.0, most - max(0.0, least)))


def credentials_of(original: OriginalDevice) -> Mapping[str, str]:
    """Return the credentials of a platform's device: its token, and what some platforms write behind a dot.

    Raises:
        NotFound: Salamander has no such platform.
        Refused: the platform needs more than the original kept.
    """
    contract = contract_of(original.platform or "")
    names = [each.name for each in contract.credential_fields]
    required = [each.name for each in contract.credential_fields if each.required]
    if not original.jid:
        raise Refused("The original keeps no token for it.", f"Add it by hand: run.py device add {original.name}")
    if original.platform == "wablas" and "." in original.jid:
        # As Wablas's own Authorization header has it: token.secret_key.
        token, _, secret = original.jid.partition(".")
        return {"token": token, "secret_key": secret}
    if len(required) > 1:
        raise Refused(
            f"{contract.title} needs {', '.join(required)}; the original kept a token only.",
            "Add it by hand: run.py device add NAME --platform " + contract.name,
        )
    return {(required or names)[0]: original.jid}


def token_of(platform: str, credentials: Mapping[str, str]) -> str:
    """Return the token under which the original would keep an account: what :func:`credentials_of` reads."""
    if platform == "wablas" and credentials.get("secret_key"):
        return f"{credentials.get('token', '')}.{credentials['secret_key']}"
    fields = contract_of(platform).credential_fields
    return credentials.get(next((each.name for each in fields if each.required), ""), "")
