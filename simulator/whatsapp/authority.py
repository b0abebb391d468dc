"""Who the simulator claims to be: a throw-away TLS authority and a throw-away Noise certificate chain.

Both are made once for a directory and kept there, so that a restarted simulator is the same server to its clients.
They can be made before the simulator runs: whoever starts clients has to name the CA file in their environment.
"""

from __future__ import annotations

import datetime
import json
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyaileys.proto import WAProto_pb2 as schema

from simulator.whatsapp.curve import KeyPair
from simulator.whatsapp.files import locked, write_private

#: How long certificates are valid. Nothing real trusts them, so they may outlive every test.
VALID_DAYS = 3650
#: The hosts the simulator speaks for.
HOSTS = ("web.whatsapp.com", "*.whatsapp.net")

_CA_FILE = "ca.pem"
_SERVER_FILE = "server.pem"
_IMPOSTOR_FILE = "impostor.pem"
_NOISE_FILE = "noise.json"


@dataclass(frozen=True)
class Authority:
    """The identities kept in one directory.

    Attributes:
        ca_file: the certificate clients must trust for TLS (PEM).
        noise_root: the public key clients must trust for Noise (32 bytes).
    """

    directory: Path
    noise_root: bytes
    noise_static: KeyPair
    noise_chain: bytes

    @property
    def ca_file(self) -> Path:
        """The certificate of the TLS authority (PEM)."""
        return self.directory / _CA_FILE

    def tls_context(self, *, impostor: bool = False) -> ssl.SSLContext:
        """Return the TLS settings of a server for ``HOSTS``; an impostor's certificate is trusted by nobody."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / (_IMPOSTOR_FILE if impostor else _SERVER_FILE))
        context.set_alpn_protocols(["http/1.1"])
        context.num_tickets = 0  # each reconnect is a full handshake anyway; tickets cost memory
        return context


def prepare_authority(directory: Path) -> Authority:
    """Return the identities of ``directory``, making them if they are not there yet.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(directory / "authority.lock"):
        if not (directory / _NOISE_FILE).exists():
            _create_tls(directory)
            _create_noise(directory)  # last: its file says that all are there
    kept = json.loads((directory / _NOISE_FILE).read_text())
    return Authority(
        directory=directory.resolve(),
        noise_root=bytes.fromhex(kept["root"]),
        noise_static=KeyPair(bytes.fromhex(kept["static"])),
        noise_chain=bytes.fromhex(kept["chain"]),
    )


def _create_noise(directory: Path) -> None:
    """Make a root, an intermediate it signs, and the server's leaf, as the real service has them."""
    root, intermediate, static = KeyPair(), KeyPair(), KeyPair()
    now = int(time.time())

    def certificate(serial: int, issuer: int, key: bytes, signer: KeyPair) -> schema.CertChain.NoiseCertificate:
        details = schema.CertChain.NoiseCertificate.Details(
            serial=serial,
            issuerSerial=issuer,
            key=key,
            notBefore=now - 86400,
            notAfter=now + 86400 * VALID_DAYS,
        ).SerializeToString()
        return schema.CertChain.NoiseCertificate(details=details, signature=signer.sign(details))

    chain = schema.CertChain(
        leaf=certificate(2, 1, static.public, intermediate),
        intermediate=certificate(1, 0, intermediate.public, root),
    )
    kept = {
        "root": root.public.hex(),
        "static": static.private.hex(),
        "chain": chain.SerializeToString().hex(),
    }
    write_private(directory / _NOISE_FILE, json.dumps(kept).encode())


def _create_tls(directory: Path) -> None:
    """Make a certificate authority and the server certificate it signs; the authority's key is thrown away."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("Salamander simulator CA", authority_key, None, None)
    write_private(directory / _CA_FILE, authority.public_bytes(serialization.Encoding.PEM))
    # A client reads this file under its own user.
    os.chmod(directory / _CA_FILE, 0o644)  # noqa: PTH101  (a certificate is public)
    for file, signer in (
        (_SERVER_FILE, authority_key),
        (_IMPOSTOR_FILE, ec.generate_private_key(ec.SECP256R1())),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(HOSTS[0], key, authority.subject, signer)
        write_private(
            directory / file,
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    signer: ec.EllipticCurvePrivateKey | None,
) -> x509.Certificate:
    """Return a certificate for ``key``: an authority signed by itself when there is no issuer."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer or key, hashes.SHA256())
