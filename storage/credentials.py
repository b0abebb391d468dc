"""Credentials at rest: sealed with the home's key, opened only in the actor that uses them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from config.errors import ConfigurationInvalid


class CredentialSeal:
    """Seals and opens small dictionaries of secrets with the key in a file (0600).

    Raises:
        ConfigurationInvalid: the file cannot be read or holds no key.
    """

    def __init__(self, key_file: Path) -> None:
        try:
            self._cipher = Fernet(base64.urlsafe_b64encode(key_file.read_bytes()))
        except (OSError, ValueError):
            raise ConfigurationInvalid(
                f"{key_file} cannot be read or holds no key.", "Restore it from a backup, readable by this user."
            ) from None
        self._key_file = key_file

    def seal(self, secrets: Mapping[str, str]) -> bytes:
        """Return ``secrets`` encrypted and authenticated."""
        return self._cipher.encrypt(json.dumps(dict(secrets)).encode())

    def open(self, sealed: bytes) -> dict[str, str]:
        """Return what was sealed.

        Raises:
            ConfigurationInvalid: it was sealed with another key.
        """
        try:
            opened: dict[str, str] = json.loads(self._cipher.decrypt(sealed))
        except InvalidToken:
            raise ConfigurationInvalid(
                f"Stored credentials cannot be opened with {self._key_file}.",
                "Restore the key that belongs to this database, or add the device again.",
            ) from None
        return opened
