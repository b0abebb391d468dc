"""Passwords, tokens and one-time codes: made here, and stored only as hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from config.errors import Refused

#: The shortest password, in characters, and the longest, in bytes: what is hashed must not be chosen without limit.
SHORTEST = 10
_LONGEST = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
#: The letters of one-time codes: none that people mistake for another.
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_CODE_LENGTH = 12

#: Parameters of RFC 9106 for machines with little memory (64 MiB a hash), which are the library's defaults.
_hasher = PasswordHasher()
#: Verified in the place of an unknown user's, so that both take as long.
_NOBODY = _hasher.hash(secrets.token_hex(16))
#: Hashes at once: each takes 64 MiB, and strangers decide how many are asked for.
_turn = threading.BoundedSemaphore(2)


def user_name(text: str) -> str:
    """Return a user's name as it is stored: in lower case.

    Raises:
        Refused: it cannot be a name.
    """
    name = text.strip().lower()
    if _NAME.fullmatch(name) is None:
        raise Refused(
            "That cannot be a user's name.",
            "Use letters, digits and . _ @ -, beginning with a letter or digit, 64 at most.",
            code="bad_name",
        )
    return name


def check_password(password: str) -> None:
    """Refuse what may not be a password.

    Raises:
        Refused: it is too short or too long; it is never quoted.
    """
    if len(password) < SHORTEST:
        raise Refused(
            f"The password is too short; it needs at least {SHORTEST} characters.",
            "A few words that only you would put together do well.",
            code="bad_password",
        )
    if len(password.encode("utf-8", "surrogatepass")) > _LONGEST:
        raise Refused("The password is too long.", f"Use at most {_LONGEST} bytes.", code="bad_password")


def hash_password(password: str) -> str:
    """Return the argon2id hash of a password.

    Raises:
        Refused: it may not be one.
    """
    check_password(password)
    with _turn:
        return _hasher.hash(password.encode("utf-8", "surrogatepass"))


def password_matches(password: str, password_hash: str | None) -> bool:
    """Return whether it is the password; None (nobody has that name) takes as long and is never."""
    given = password.encode("utf-8", "surrogatepass")
    if len(given) > _LONGEST:
        given = b""
    with _turn:
        try:
            _hasher.verify(password_hash if password_hash is not None else _NOBODY, given)
        except (VerificationError, InvalidHashError):
            return False
    return password_hash is not None


def is_dated(password_hash: str) -> bool:
    """Return whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """Return what is stored of a token. It is long and random, so that a plain hash of it says nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_code() -> str:
    """Return a one-time code to be typed by a person, as ``ABCD-EFGH-JKLM``."""
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
    return "-".join(letters[first : first + 4] for first in range(0, _CODE_LENGTH, 4))


def code_hash(code: str) -> bytes:
    """Return what is stored of a code, however it was typed: its hyphens, spaces and case do not count."""
    return token_hash("".join(letter for letter in code.upper() if letter.isalnum()))
