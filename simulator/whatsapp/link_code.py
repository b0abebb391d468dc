"""Linking with a typed code: how the eight characters protect the key exchange between phone and companion.

Both sides encrypt an ephemeral public key with a key derived from the code; whoever does not know the code computes
another shared secret, and the bundle the companion sends at the end does not decrypt.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from simulator.whatsapp.curve import KeyPair, hkdf

#: The characters of a code: digits and letters that cannot be mistaken for one another.
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
CODE_LENGTH = 8
_ITERATIONS = 2 << 16
#: Salt (32), counter block (16), encrypted public key (32).
WRAPPED_LENGTH = 80


class WrongCode(Exception):
    """The code that was typed is not the one the companion shows."""


def normalize_code(text: str) -> str:
    """Return a code as it is used: upper case, without the dash.

    Raises:
        WrongCode: it cannot be a code.
    """
    code = text.replace("-", "").replace(" ", "").upper()
    if len(code) != CODE_LENGTH or any(character not in ALPHABET for character in code):
        raise WrongCode(f"a code has {CODE_LENGTH} characters out of {ALPHABET}")
    return code


@dataclass(frozen=True)
class Exchange:
    """The phone's half of one attempt: its ephemeral key, and that key wrapped for the companion."""

    shared: bytes
    wrapped: bytes


def begin_exchange(code: str, companion_wrapped: bytes) -> Exchange:
    """Unwrap the companion's ephemeral key with ``code`` and wrap one of our own.

    It derives two keys from the code, some 0.1 s of work: call it off the event loop.

    Raises:
        WrongCode: the unwrapped bytes are no usable key.
    """
    ephemeral, salt, counter = KeyPair(), secrets.token_bytes(32), secrets.token_bytes(16)
    theirs = _crypt(code, companion_wrapped[:32], companion_wrapped[32:48], companion_wrapped[48:])
    try:
        shared = ephemeral.agree(theirs)
    except ValueError:
        raise WrongCode("the code is not the one the companion shows") from None
    return Exchange(shared, salt + counter + _crypt(code, salt, counter, ephemeral.public))


def finish_exchange(exchange: Exchange, identity: KeyPair, companion: bytes, bundle: bytes) -> bytes:
    """Open the companion's bundle; return the secret that seals its device identity.

    Args:
        exchange: our half.
        identity: the phone's identity.
        companion: the identity key the companion names.
        bundle: salt (32), nonce (12) and the encrypted keys.

    Raises:
        WrongCode: the bundle does not open, or names other keys.
    """
    key = hkdf(exchange.shared, bundle[:32], b"link_code_pairing_key_bundle_encryption_key", 32)
    try:
        keys = AESGCM(key).decrypt(bundle[32:44], bundle[44:], None)
    except (InvalidTag, ValueError):
        raise WrongCode("the code is not the one the companion shows") from None
    if len(keys) != 96 or keys[:32] != companion or keys[32:64] != identity.public:
        raise WrongCode("the companion's bundle names other keys")
    return hkdf(exchange.shared + identity.agree(companion) + keys[64:], b"", b"adv_secret", 32)


def _crypt(code: str, salt: bytes, counter: bytes, data: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, _ITERATIONS, 32)
    cipher = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    return cipher.update(data) + cipher.finalize()
