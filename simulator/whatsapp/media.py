"""Media: files encrypted by the sender, kept by the media hosts under the hash of their ciphertext."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from simulator.whatsapp.curve import hkdf
from simulator.whatsapp.files import write_private

_MAC_LENGTH = 10
_KEY_INFO = {
    "image": b"WhatsApp Image Keys",
    "video": b"WhatsApp Video Keys",
    "audio": b"WhatsApp Audio Keys",
    "document": b"WhatsApp Document Keys",
}
#: Where clients download from: the path carries the ciphertext's hash; the query is opaque to them.
_PATH_PREFIX = "/o1/v/t62/"
_PATH_SUFFIX = "?ccb=11-4&_nc_sid=5e03e0"


class MediaRefused(Exception):
    """Media are missing, or not what the message says they are."""


@dataclass(frozen=True)
class MediaReference:
    """What a message says about the media it carries."""

    kind: str
    direct_path: str
    key: bytes
    sha256: bytes
    encrypted_sha256: bytes
    length: int
    mimetype: str
    file_name: str


class MediaStore:
    """The files of the media hosts, each named by the SHA-256 of its (encrypted) bytes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keep ``data``; return the direct path under which it is downloaded."""
        name = hashlib.sha256(data).hexdigest()
        path = self._directory / name
        if not path.exists():
            write_private(path, data)
        return _PATH_PREFIX + name + _PATH_SUFFIX

    def get(self, direct_path: str) -> bytes | None:
        """Return what was kept under ``direct_path`` (its query is ignored), or None."""
        path, _, _ = direct_path.partition("?")
        name = path.removeprefix(_PATH_PREFIX)
        if len(name) != 64 or not all(character in "0123456789abcdef" for character in name):
            return None
        file = self._directory / name
        return file.read_bytes() if file.exists() else None


def open_media(store: MediaStore, reference: MediaReference) -> bytes:
    """Download and decrypt what a message refers to, checking every hash on the way.

    Raises:
        MediaRefused: the file is missing, or a hash, the MAC, the padding or the length is wrong.
    """
    data = store.get(reference.direct_path)
    if data is None:
        raise MediaRefused(f"no media at {reference.direct_path!r}")
    if hashlib.sha256(data).digest() != reference.encrypted_sha256:
        raise MediaRefused("the encrypted media have another hash than the message says")
    keys = hkdf(reference.key, b"", _KEY_INFO[reference.kind], 112)
    vector, cipher_key, mac_key = keys[:16], keys[16:48], keys[48:80]
    ciphertext, mac = data[:-_MAC_LENGTH], data[-_MAC_LENGTH:]
    if not hmac.compare_digest(hmac.digest(mac_key, vector + ciphertext, "sha256")[:_MAC_LENGTH], mac):
        raise MediaRefused("the MAC of the media is wrong")
    if not ciphertext or len(ciphertext) % 16:
        raise MediaRefused("the encrypted media have a wrong length")
    decryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(vector)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    filling = padded[-1]
    if not 1 <= filling <= 16 or padded[-filling:] != bytes([filling]) * filling:
        raise MediaRefused("the padding of the media is wrong")
    plaintext = padded[:-filling]
    if hashlib.sha256(plaintext).digest() != reference.sha256 or len(plaintext) != reference.length:
        raise MediaRefused("the media have another hash or length than the message says")
    return plaintext
