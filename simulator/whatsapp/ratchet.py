"""Signal sessions, version 3: the first key agreement (X3DH) and the double ratchet that follows it.

One variant of everything: a message authenticates with the MAC of the two identities in their one right order, or it
is refused. The constants are those of libsignal, which every WhatsApp client uses.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from google.protobuf.message import DecodeError
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp.curve import KEY_TYPE, KeyPair, hkdf, hmac_sha256, verify_pre_key

#: First byte of every message: this version and the highest one known.
_VERSION = b"\x33"
_MAC_LENGTH = 8
#: How far ahead of the last message one may be, and how many chains are kept for late ones (libsignal's limits).
_LONGEST_GAP = 2000
_CHAINS_KEPT = 5


class UndecryptableMessage(Exception):
    """A message cannot be decrypted, or it does not authenticate."""


@dataclass(frozen=True)
class Bundle:
    """The public keys of a device that let anyone begin a session with it."""

    registration: int
    identity: bytes
    signed_pre_key_id: int
    signed_pre_key: bytes
    signature: bytes
    pre_key_id: int | None = None
    pre_key: bytes | None = None


@dataclass
class Chain:
    """A receiving chain: the peer's ratchet key, where the chain stands, and the keys of messages not yet seen."""

    ratchet: bytes
    key: bytes
    index: int = 0
    skipped: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Session:
    """One session with one device.

    ``base`` identifies it: the key with which its first message began it. While ``unanswered`` holds the ids of the
    pre-keys used, every message repeats them, since the peer may not have seen the first one.
    """

    ours: bytes
    theirs: bytes
    root: bytes
    base: bytes
    ratchet: bytes
    sending: bytes
    sending_index: int = 0
    previous_index: int = 0
    registration: int = 0
    unanswered: tuple[int | None, int] | None = None
    chains: list[Chain] = field(default_factory=list)

    def copy(self) -> Session:
        """Return a copy that can be changed without touching this one."""
        return replace(self, chains=[replace(chain, skipped=dict(chain.skipped)) for chain in self.chains])


@dataclass(frozen=True)
class PreKeyMessage:
    """The message that begins a session."""

    registration: int
    pre_key_id: int | None
    signed_pre_key_id: int
    base: bytes
    identity: bytes
    message: bytes


def read_pre_key_message(data: bytes) -> PreKeyMessage:
    """Parse a message that begins a session.

    Raises:
        UndecryptableMessage: it is malformed.
    """
    if data[:1] != _VERSION:
        raise UndecryptableMessage("a pre-key message of an unknown version")
    try:
        parsed = schema.PreKeySignalMessage.FromString(data[1:])
    except DecodeError:
        raise UndecryptableMessage("a malformed pre-key message") from None
    return PreKeyMessage(
        registration=parsed.registrationId,
        pre_key_id=parsed.preKeyId if parsed.HasField("preKeyId") else None,
        signed_pre_key_id=parsed.signedPreKeyId,
        base=_public(parsed.baseKey),
        identity=_public(parsed.identityKey),
        message=parsed.message,
    )


def begin_session(identity: KeyPair, registration: int, bundle: Bundle) -> Session:
    """Begin a session with the device of ``bundle``, as its initiator.

    Raises:
        UndecryptableMessage: the bundle's signature is wrong.
    """
    if not verify_pre_key(bundle.identity, bundle.signed_pre_key, bundle.signature):
        raise UndecryptableMessage("the bundle's signed pre-key is not signed by its identity")
    base, ratchet = KeyPair(), KeyPair()
    secret = identity.agree(bundle.signed_pre_key) + base.agree(bundle.identity) + base.agree(bundle.signed_pre_key)
    if bundle.pre_key is not None:
        secret += base.agree(bundle.pre_key)
    root, receiving = _first_keys(secret)
    session = Session(
        ours=identity.public,
        theirs=bundle.identity,
        root=root,
        base=base.public,
        ratchet=ratchet.private,
        sending=b"",
        registration=registration,
        unanswered=(bundle.pre_key_id, bundle.signed_pre_key_id),
        chains=[Chain(bundle.signed_pre_key, receiving)],
    )
    session.root, session.sending = _turn(root, ratchet, bundle.signed_pre_key)
    return session


def answer_session(
    identity: KeyPair, signed_pre_key: KeyPair, pre_key: KeyPair | None, message: PreKeyMessage
) -> Session:
    """Begin the session that ``message`` asks for, as its recipient."""
    secret = (
        signed_pre_key.agree(message.identity)
        + identity.agree(message.base)
        + signed_pre_key.agree(message.base)
        + (pre_key.agree(message.base) if pre_key else b"")
    )
    root, sending = _first_keys(secret)
    return Session(
        ours=identity.public,
        theirs=message.identity,
        root=root,
        base=message.base,
        ratchet=signed_pre_key.private,
        sending=sending,
    )


def encrypt(session: Session, plaintext: bytes) -> tuple[str, bytes]:
    """Encrypt the next message and advance ``session``; return its type (``pkmsg`` or ``msg``) and its bytes."""
    seed = hmac_sha256(session.sending, b"\x01")
    cipher_key, mac_key, vector = _message_keys(seed)
    body = schema.SignalMessage(
        ratchetKey=KEY_TYPE + KeyPair(session.ratchet).public,
        counter=session.sending_index,
        previousCounter=session.previous_index,
        ciphertext=_aes_cbc_encrypt(cipher_key, vector, plaintext),
    )
    signed = _VERSION + body.SerializeToString()
    message = signed + _mac(mac_key, session.ours, session.theirs, signed)
    session.sending = hmac_sha256(session.sending, b"\x02")
    session.sending_index += 1
    if session.unanswered is None:
        return "msg", message
    pre_key_id, signed_pre_key_id = session.unanswered
    wrapped = schema.PreKeySignalMessage(
        registrationId=session.registration,
        signedPreKeyId=signed_pre_key_id,
        baseKey=KEY_TYPE + session.base,
        identityKey=KEY_TYPE + session.ours,
        message=message,
    )
    if pre_key_id is not None:
        wrapped.preKeyId = pre_key_id
    return "pkmsg", _VERSION + wrapped.SerializeToString()


def decrypt(session: Session, message: bytes) -> tuple[Session, bytes]:
    """Decrypt ``message``; return the advanced session (``session`` itself is left alone) and the plaintext.

    Raises:
        UndecryptableMessage: it is malformed, not of this session, or was decrypted before.
    """
    signed, mac = message[:-_MAC_LENGTH], message[-_MAC_LENGTH:]
    if signed[:1] != _VERSION:
        raise UndecryptableMessage("a message of an unknown version")
    try:
        body = schema.SignalMessage.FromString(signed[1:])
    except DecodeError:
        raise UndecryptableMessage("a malformed message") from None
    session = session.copy()
    chain = _chain_for(session, _public(body.ratchetKey))
    seed = _seed_of(chain, body.counter)
    cipher_key, mac_key, vector = _message_keys(seed)
    if not hmac.compare_digest(_mac(mac_key, session.theirs, session.ours, signed), mac):
        raise UndecryptableMessage("the MAC is wrong")
    session.unanswered = None
    return session, _aes_cbc_decrypt(cipher_key, vector, body.ciphertext)


def _chain_for(session: Session, ratchet: bytes) -> Chain:
    """Return the chain of the peer's ratchet key, turning the ratchet when the key is new."""
    for chain in session.chains:
        if hmac.compare_digest(chain.ratchet, ratchet):
            return chain
    root, receiving = _turn(session.root, KeyPair(session.ratchet), ratchet)
    fresh = KeyPair()
    session.root, session.sending = _turn(root, fresh, ratchet)
    session.ratchet = fresh.private
    session.previous_index = max(session.sending_index - 1, 0)
    session.sending_index = 0
    session.chains = [*session.chains, Chain(ratchet, receiving)][-_CHAINS_KEPT:]
    return session.chains[-1]


def _seed_of(chain: Chain, counter: int) -> bytes:
    """Return the seed of message ``counter``, keeping those of the messages before it that have not arrived."""
    if counter < chain.index:
        seed = chain.skipped.pop(counter, None)
        if seed is None:
            raise UndecryptableMessage("a message with this counter was decrypted before")
        return seed
    if counter - chain.index > _LONGEST_GAP:
        raise UndecryptableMessage("too far ahead of the last message")
    while True:
        seed = hmac_sha256(chain.key, b"\x01")
        chain.key = hmac_sha256(chain.key, b"\x02")
        chain.index += 1
        if chain.index > counter:
            return seed
        chain.skipped[chain.index - 1] = seed


def _first_keys(secret: bytes) -> tuple[bytes, bytes]:
    keys = hkdf(b"\xff" * 32 + secret, b"", b"WhisperText", 64)
    return keys[:32], keys[32:]


def _turn(root: bytes, ours: KeyPair, theirs: bytes) -> tuple[bytes, bytes]:
    """Return the next root key and the key of the chain it begins."""
    keys = hkdf(ours.agree(theirs), root, b"WhisperRatchet", 64)
    return keys[:32], keys[32:]


def _message_keys(seed: bytes) -> tuple[bytes, bytes, bytes]:
    keys = hkdf(seed, b"", b"WhisperMessageKeys", 80)
    return keys[:32], keys[32:64], keys[64:]


def _mac(key: bytes, sender: bytes, recipient: bytes, signed: bytes) -> bytes:
    return hmac_sha256(key, KEY_TYPE + sender + KEY_TYPE + recipient + signed)[:_MAC_LENGTH]


def _public(encoded: bytes) -> bytes:
    if len(encoded) != 33 or encoded[:1] != KEY_TYPE:
        raise UndecryptableMessage("a public key of an unknown type")
    return encoded[1:]


def _aes_cbc_encrypt(key: bytes, vector: bytes, plaintext: bytes) -> bytes:
    filling = 16 - len(plaintext) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    return encryptor.update(plaintext + bytes([filling]) * filling) + encryptor.finalize()


def _aes_cbc_decrypt(key: bytes, vector: bytes, ciphertext: bytes) -> bytes:
    if not ciphertext or len(ciphertext) % 16:
        raise UndecryptableMessage("a ciphertext of a wrong length")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    filling = padded[-1]
    if not 1 <= filling <= 16 or padded[-filling:] != bytes([filling]) * filling:
        raise UndecryptableMessage("a wrong padding")
    return padded[:-filling]
