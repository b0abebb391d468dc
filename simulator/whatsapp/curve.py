"""Curve25519 as WhatsApp uses it: key agreement, XEd25519 signatures, and HKDF over SHA-256."""

from __future__ import annotations

import hmac
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from xeddsa import bindings as xeddsa

#: Libsignal writes this byte before a public key to say which curve it is on.
KEY_TYPE = b"\x05"


class KeyPair:
    """A Curve25519 key pair, made afresh unless the private key is given."""

    def __init__(self, private: bytes | None = None) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private) if private else X25519PrivateKey.generate()

    @cached_property
    def private(self) -> bytes:
        """The private key (32 bytes)."""
        return self._key.private_bytes_raw()

    @cached_property
    def public(self) -> bytes:
        """The public key (32 bytes), without libsignal's type byte."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the secret shared with the owner of ``public``.

        Raises:
            ValueError: ``public`` is no usable key.
        """
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))

    def sign(self, message: bytes) -> bytes:
        """Return the XEd25519 signature (64 bytes) of ``message``."""
        signature: bytes = xeddsa.ed25519_priv_sign(xeddsa.priv_force_sign(self.private, False), message)
        return signature


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` of ``message`` was made with the private key of ``public``.

    Libsignal keeps the sign of the Edwards point in the top bit of the signature.
    """
    if len(public) != 32 or len(signature) != 64:
        return False
    negative = bool(signature[63] & 0x80)
    try:
        edwards = Ed25519PublicKey.from_public_bytes(xeddsa.curve25519_pub_to_ed25519_pub(public, negative))
        edwards.verify(signature[:63] + bytes([signature[63] & 0x7F]), message)
    except (InvalidSignature, ValueError, xeddsa.XEdDSAException):
        return False
    return True


def verify_pre_key(identity: bytes, pre_key: bytes, signature: bytes) -> bool:
    """Tell whether a signed pre-key was signed by ``identity``."""
    return verify(identity, KEY_TYPE + pre_key, signature)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256."""
    return hmac.digest(key, message, "sha256")


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA-256 (an empty salt stands for 32 zero bytes)."""
    extracted = hmac_sha256(salt or bytes(32), secret)
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac_sha256(extracted, block + info + bytes([counter]))
        output += block
        counter += 1
    return output[:length]
