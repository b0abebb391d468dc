"""The server's side of the handshake Noise_XX_25519_AESGCM_SHA256, and the cipher that follows it."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp.curve import KeyPair, hkdf

#: The protocol's name fills the 32 bytes a hash has.
_PROTOCOL = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"
#: What a client sends first: "WA", the protocol's version, the version of the token tables.
CONNECTION_HEADER = b"WA\x06\x03"


class HandshakeRefused(Exception):
    """The client's part of the handshake does not verify."""


def _nonce(counter: int) -> bytes:
    return bytes(8) + counter.to_bytes(4, "big")


class NoiseCipher:
    """One direction of an established connection: each message has the next counter as its nonce."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt the next message."""
        self._counter += 1
        return self._cipher.encrypt(_nonce(self._counter - 1), plaintext, None)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt the next message.

        Raises:
            HandshakeRefused: it was not made with this connection's key and counter.
        """
        self._counter += 1
        try:
            return self._cipher.decrypt(_nonce(self._counter - 1), ciphertext, None)
        except InvalidTag:
            raise HandshakeRefused("a frame does not verify") from None


class NoiseResponder:
    """The handshake as the server goes through it: ``hello`` answers the first message, ``finish`` ends it."""

    def __init__(self, static: KeyPair, certificates: bytes) -> None:
        self._static = static
        self._certificates = certificates
        self._ephemeral = KeyPair()
        self._hash = self._chaining = _PROTOCOL
        self._cipher = AESGCM(_PROTOCOL)
        self._counter = 0
        self._authenticate(CONNECTION_HEADER)

    def hello(self, frame: bytes) -> bytes:
        """Return the answer to the client's first frame.

        Raises:
            HandshakeRefused: the frame holds no ephemeral key.
        """
        theirs: bytes = _parse(frame).clientHello.ephemeral
        if len(theirs) != 32:
            raise HandshakeRefused("the client's hello holds no ephemeral key")
        self._authenticate(theirs)
        self._authenticate(self._ephemeral.public)
        self._mix(self._ephemeral.agree(theirs))
        static = self._encrypt(self._static.public)
        self._mix(self._static.agree(theirs))
        answer = schema.HandshakeMessage.ServerHello(
            ephemeral=self._ephemeral.public, static=static, payload=self._encrypt(self._certificates)
        )
        message: bytes = schema.HandshakeMessage(serverHello=answer).SerializeToString()
        return message

    def finish(self, frame: bytes) -> tuple[bytes, bytes]:
        """Read the client's last frame; return its static (Noise) public key and its payload.

        Raises:
            HandshakeRefused: it does not verify.
        """
        message = _parse(frame).clientFinish
        client_static = self._decrypt(message.static)
        if len(client_static) != 32:
            raise HandshakeRefused("the client's static key is not 32 bytes")
        self._mix(self._ephemeral.agree(client_static))
        return client_static, self._decrypt(message.payload)

    def ciphers(self) -> tuple[NoiseCipher, NoiseCipher]:
        """Return the ciphers of the connection: (client to server, server to client)."""
        keys = hkdf(b"", self._chaining, b"", 64)
        return NoiseCipher(keys[:32]), NoiseCipher(keys[32:])

    def _authenticate(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix(self, secret: bytes) -> None:
        keys = hkdf(secret, self._chaining, b"", 64)
        self._chaining, self._cipher, self._counter = keys[:32], AESGCM(keys[32:]), 0

    def _encrypt(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(_nonce(self._counter), plaintext, self._hash)
        self._counter += 1
        self._authenticate(ciphertext)
        return ciphertext

    def _decrypt(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = self._cipher.decrypt(_nonce(self._counter), ciphertext, self._hash)
        except InvalidTag:
            raise HandshakeRefused("the client's part of the handshake does not verify") from None
        self._counter += 1
        self._authenticate(ciphertext)
        return plaintext


def _parse(frame: bytes) -> schema.HandshakeMessage:
    try:
        return schema.HandshakeMessage.FromString(frame)
    except DecodeError:
        raise HandshakeRefused("a handshake frame is no protocol buffer") from None
