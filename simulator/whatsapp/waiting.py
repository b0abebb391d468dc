"""A companion that waits to be linked: the keys it registered with, and the QR code it shows."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from config.errors import Refused
from simulator.whatsapp.curve import verify_pre_key
from simulator.whatsapp.nodes import MalformedStanza
from simulator.whatsapp.records import Companion

if TYPE_CHECKING:
    from simulator.whatsapp.connection import Connection


@dataclass
class Waiting:
    """A companion that waits to be linked, as the server knows it."""

    connection: Connection
    noise: bytes
    identity: bytes
    registration: int
    signed_pre_key_id: int
    signed_pre_key: bytes
    signature: bytes
    refs: list[str] = field(default_factory=list)
    code_number: str = ""
    code_ref: str = ""
    code_wrapped: bytes = b""
    finished: asyncio.Future[tuple[bytes, bytes]] | None = None
    issued: bytes = b""
    linked: asyncio.Future[Companion] | None = None
    becomes: Companion | None = None


@dataclass(frozen=True)
class ShownQr:
    """What a QR code says."""

    ref: str
    noise: bytes
    identity: bytes
    secret: bytes


def read_qr(text: str) -> ShownQr:
    """Read a QR text, with or without the address in front of it.

    Raises:
        Refused: it is no pairing QR code.
    """
    parts = text.strip().rpartition("#")[2].split(",")
    try:
        noise, identity, secret = (base64.b64decode(part, validate=True) for part in parts[1:4])
    except (binascii.Error, ValueError):
        noise = identity = secret = b""
    if not {len(noise), len(identity), len(secret)} == {32}:
        raise Refused("This is not the text of a pairing QR code.", "Pass it whole: ref,key,key,secret,type.")
    return ShownQr(parts[0], noise, identity, secret)


def read_registration(data: Any, noise: bytes, connection: Connection) -> Waiting:
    """Check the keys with which a companion registers.

    Raises:
        MalformedStanza: one is missing, or the signed pre-key is not signed by the identity.
    """
    lengths = [len(data.eIdent), len(data.eSkeyVal), len(data.eSkeySig), len(data.eRegid), len(data.eSkeyId)]
    if lengths != [32, 32, 64, 4, 3] or data.eKeytype != b"\x05":
        raise MalformedStanza("a registration with keys of wrong types or lengths")
    if not verify_pre_key(data.eIdent, data.eSkeyVal, data.eSkeySig):
        raise MalformedStanza("a registration with a signed pre-key that its identity did not sign")
    return Waiting(
        connection=connection,
        noise=noise,
        identity=data.eIdent,
        registration=int.from_bytes(data.eRegid, "big"),
        signed_pre_key_id=int.from_bytes(data.eSkeyId, "big"),
        signed_pre_key=data.eSkeyVal,
        signature=data.eSkeySig,
    )
