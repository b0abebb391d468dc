"""A bare client of the WhatsApp protocol for tests: it can lie where the real client never would."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp import binary_xml
from simulator.whatsapp.curve import KEY_TYPE, KeyPair, hkdf, verify
from simulator.whatsapp.nodes import SERVER, Node
from simulator.whatsapp.noise import CONNECTION_HEADER, NoiseCipher


class HungUp(Exception):
    """The server closed the connection."""


class RawKeys:
    """The keys of one companion."""

    def __init__(self) -> None:
        self.noise, self.identity, self.signed_pre_key = KeyPair(), KeyPair(), KeyPair()
        self.signature = self.identity.sign(KEY_TYPE + self.signed_pre_key.public)
        self.secret = os.urandom(32)
        self.registration = 4711

    def payload(self, **changes: bytes) -> bytes:
        """Return the payload of a companion that wants to be linked."""
        data = {
            "eRegid": self.registration.to_bytes(4, "big"),
            "eKeytype": KEY_TYPE,
            "eIdent": self.identity.public,
            "eSkeyId": b"\0\0\1",
            "eSkeyVal": self.signed_pre_key.public,
            "eSkeySig": self.signature,
        }
        registration = schema.ClientPayload.DevicePairingRegistrationData(**{**data, **changes})
        payload: bytes = schema.ClientPayload(devicePairingData=registration).SerializeToString()
        return payload

    def qr(self, ref: str) -> str:
        """Return the QR text the companion shows."""
        keys = (self.noise.public, self.identity.public, self.secret)
        return ",".join([ref, *(base64.b64encode(key).decode() for key in keys), "1"])

    def device_identity(self, sealed: bytes, *, signer: KeyPair | None = None) -> schema.ADVSignedDeviceIdentity:
        """Return the complete, signed identity for what the phone sent."""
        container = schema.ADVSignedDeviceIdentityHMAC.FromString(sealed)
        identity = schema.ADVSignedDeviceIdentity.FromString(container.details)
        signed = b"\x06\x01" + identity.details + self.identity.public + identity.accountSignatureKey
        identity.deviceSignature = (signer or self.identity).sign(signed)
        return identity


class RawClient:
    """One connection: through the proxy, TLS, the WebSocket and the Noise handshake."""

    def __init__(
        self,
        simulator: dict[str, Any],
        keys: RawKeys,
        payload: bytes,
        *,
        header: bytes = CONNECTION_HEADER,
        break_handshake: bool = False,
    ) -> None:
        host, _, port = simulator["proxy"].removeprefix("http://").partition(":")
        plain = socket.create_connection((host, int(port)), timeout=20)
        plain.sendall(b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nHost: web.whatsapp.com:443\r\n\r\n")
        assert b" 200 " in plain.recv(4096)
        context = ssl.create_default_context(cafile=simulator["ca_file"])
        self._socket = context.wrap_socket(plain, server_hostname="web.whatsapp.com")
        self._socket.sendall(
            b"GET /ws/chat HTTP/1.1\r\nHost: web.whatsapp.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(1)
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # the example of RFC 6455
        self._buffer = b""
        try:
            self._handshake(simulator, keys, payload, header, break_handshake)
        except BaseException:
            self._socket.close()
            raise

    def _handshake(
        self, simulator: dict[str, Any], keys: RawKeys, payload: bytes, header: bytes, break_it: bool
    ) -> None:
        ephemeral = KeyPair()
        digest = chaining = key = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"
        counter = 0

        def mix(secret: bytes) -> None:
            nonlocal chaining, key, counter
            output = hkdf(secret, chaining, b"", 64)
            chaining, key, counter = output[:32], output[32:], 0

        def crypt(data: bytes, *, seal: bool) -> bytes:
            nonlocal digest, counter
            nonce = bytes(8) + counter.to_bytes(4, "big")
            cipher = AESGCM(key)
            result = (cipher.encrypt if seal else cipher.decrypt)(nonce, data, digest)
            counter += 1
            digest = hashlib.sha256(digest + (result if seal else data)).digest()
            return result

        for part in (header, ephemeral.public):
            digest = hashlib.sha256(digest + part).digest()
        hello = schema.HandshakeMessage.ClientHello(ephemeral=ephemeral.public)
        self._send_frame(schema.HandshakeMessage(clientHello=hello).SerializeToString(), before=header)
        answer = schema.HandshakeMessage.FromString(self._frame()).serverHello
        digest = hashlib.sha256(digest + answer.ephemeral).digest()
        mix(ephemeral.agree(answer.ephemeral))
        static = crypt(answer.static, seal=False)
        mix(ephemeral.agree(static))
        check_chain(crypt(answer.payload, seal=False), static, bytes.fromhex(simulator["noise_root"]))
        sealed_static = crypt(keys.noise.public, seal=True)
        mix((KeyPair() if break_it else keys.noise).agree(answer.ephemeral))
        finish = schema.HandshakeMessage.ClientFinish(static=sealed_static, payload=crypt(payload, seal=True))
        self._send_frame(schema.HandshakeMessage(clientFinish=finish).SerializeToString())
        output = hkdf(b"", chaining, b"", 64)
        self._outgoing, self._incoming = NoiseCipher(output[:32]), NoiseCipher(output[32:])

    def send(self, node: Node) -> None:
        """Send a stanza."""
        self._send_frame(self._outgoing.encrypt(binary_xml.encode(node)))

    def receive(self, tag: str) -> Node:
        """Return the next stanza with this tag, skipping others."""
        while True:
            node = binary_xml.decode(self._incoming.decrypt(self._frame()))
            if node.tag == tag:
                return node

    def query(self, namespace: str, content: list[Node], kind: str = "get") -> Node:
        """Send a query and return its answer."""
        identifier = os.urandom(4).hex()
        self.send(Node("iq", {"id": identifier, "xmlns": namespace, "type": kind, "to": SERVER}, content))
        while True:
            answer = self.receive("iq")
            if answer.text("id") == identifier:
                return answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send_frame(self, data: bytes, before: bytes = b"") -> None:
        message = before + len(data).to_bytes(3, "big") + data
        length = bytes([128 | 126]) + struct.pack(">H", len(message))
        self._socket.sendall(b"\x82" + length + bytes(4) + message)  # masked with zeros

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise HungUp
            data += more
        return data

    def _message(self) -> bytes:
        _, length = self._read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8))
        return self._read(length)

    def _frame(self) -> bytes:
        while len(self._buffer) < 3 or len(self._buffer) < 3 + int.from_bytes(self._buffer[:3], "big"):
            self._buffer += self._message()
        end = 3 + int.from_bytes(self._buffer[:3], "big")
        frame, self._buffer = self._buffer[3:end], self._buffer[end:]
        return frame


def check_chain(chain: bytes, static: bytes, root: bytes) -> None:
    """Check the server's certificates as the real client does (whatsmeow, handshake.go)."""
    parsed = schema.CertChain.FromString(chain)
    details = schema.CertChain.NoiseCertificate.Details
    intermediate = details.FromString(parsed.intermediate.details)
    leaf = details.FromString(parsed.leaf.details)
    assert verify(root, parsed.intermediate.details, parsed.intermediate.signature)
    assert intermediate.issuerSerial == 0
    assert verify(intermediate.key, parsed.leaf.details, parsed.leaf.signature)
    assert (leaf.issuerSerial, leaf.key) == (intermediate.serial, static)
