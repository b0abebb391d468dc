"""Linked-device identities ("ADV"): what the phone signs for a companion, and what the companion signs back."""

from __future__ import annotations

import secrets
import time

from google.protobuf.message import DecodeError
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp.curve import KeyPair, hmac_sha256, verify

_ACCOUNT_SIGNATURE = b"\x06\x00"
_DEVICE_SIGNATURE = b"\x06\x01"


class WrongDeviceIdentity(Exception):
    """A device identity does not verify."""


def sign_for_companion(account: KeyPair, companion: bytes, key_index: int) -> bytes:
    """Return the phone's statement that the device with the identity key ``companion`` belongs to it.

    The result is a serialized ``ADVSignedDeviceIdentity`` without the companion's own signature.
    """
    details = schema.ADVDeviceIdentity(
        rawId=secrets.randbits(31), timestamp=int(time.time()), keyIndex=key_index
    ).SerializeToString()
    identity: bytes = schema.ADVSignedDeviceIdentity(
        details=details,
        accountSignatureKey=account.public,
        accountSignature=account.sign(_ACCOUNT_SIGNATURE + details + companion),
    ).SerializeToString()
    return identity


def seal(identity: bytes, secret: bytes) -> bytes:
    """Return ``identity`` with the HMAC of the secret that only the phone and the companion share."""
    sealed: bytes = schema.ADVSignedDeviceIdentityHMAC(
        details=identity, hmac=hmac_sha256(secret, identity)
    ).SerializeToString()
    return sealed


def verify_answer(issued: bytes, answer: bytes, companion: bytes) -> bytes:
    """Check what the companion sends back when it is paired; return the complete identity.

    Args:
        issued: what ``sign_for_companion`` returned.
        answer: the companion's copy, signed by it, without the account's key.
        companion: the companion's identity key.

    Raises:
        WrongDeviceIdentity: it is not the issued one, or not signed by the companion.
    """
    expected, returned = _parse(issued), _parse(answer)
    if (returned.details, returned.accountSignature) != (expected.details, expected.accountSignature):
        raise WrongDeviceIdentity("the companion returned another identity than the one issued")
    returned.accountSignatureKey = expected.accountSignatureKey
    complete: bytes = returned.SerializeToString()
    verify_device_identity(complete, expected.accountSignatureKey, companion)
    return complete


def verify_device_identity(identity: bytes, account: bytes, companion: bytes) -> None:
    """Check both signatures of a complete device identity, as a recipient of its messages does.

    Raises:
        WrongDeviceIdentity: a signature is missing or wrong, or it is another account's.
    """
    parsed = _parse(identity)
    if parsed.accountSignatureKey != account:
        raise WrongDeviceIdentity("the device identity names another account")
    if not verify(account, _ACCOUNT_SIGNATURE + parsed.details + companion, parsed.accountSignature):
        raise WrongDeviceIdentity("the account did not sign this device")
    signed = _DEVICE_SIGNATURE + parsed.details + companion + account
    if not verify(companion, signed, parsed.deviceSignature):
        raise WrongDeviceIdentity("the device did not sign its identity")


def key_index_of(identity: bytes) -> int:
    """Return the key index in a device identity.

    Raises:
        WrongDeviceIdentity: it is malformed.
    """
    try:
        index: int = schema.ADVDeviceIdentity.FromString(_parse(identity).details).keyIndex
    except DecodeError:
        raise WrongDeviceIdentity("a device identity's details are malformed") from None
    return index


def _parse(identity: bytes) -> schema.ADVSignedDeviceIdentity:
    try:
        return schema.ADVSignedDeviceIdentity.FromString(identity)
    except DecodeError:
        raise WrongDeviceIdentity("a device identity is malformed") from None
