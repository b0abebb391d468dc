"""The transport against raw sockets: each way a request can fare, and what is said of it."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.platforms import contract_of
from actors.platforms.contract import Account, PlatformMessage, Request
from actors.platforms.outcomes import Accepted, AccountState, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.transport import LONGEST_REPLY_BYTES, PlatformTransport

if TYPE_CHECKING:
    from pathlib import Path

WABLAS = contract_of("wablas")
WHACENTER = contract_of("whacenter")
SECRETS = ("invented-token", "invented-secret")
MESSAGE = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello")
TAKEN = b'{"status":true,"message":"ok","data":{"messages":[{"id":"u-1","status":"pending"}]}}'
#: The longest a test waits for something that should happen at once.
PATIENCE = 10.0


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.requests = 0

    def read_request(self) -> bytes:
        """Read one whole request; empty: the client is gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.connection.recv(65_536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")),
            0,
        )
        while len(body) < length:
            body += self.connection.recv(65_536)
        self.requests += 1
        return head + b"\r\n\r\n" + body

    def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Send one whole answer."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def wait_for_bytes(self) -> None:
        """Wait until the client has sent something, and leave it unread."""
        self.connection.recv(1, socket.MSG_PEEK)

    def reset(self) -> None:
        """Close with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_for_hang_up(self) -> None:
        """Wait until the client closes its end."""
        self.connection.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            while self.connection.recv(65_536):
                pass


class RawServer:
    """A loopback server that treats each connection as a function says."""

    def __init__(self, behaviour: Callable[[Peer], None], context: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.requests: list[bytes] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            peer = Peer(connection)
            reading = peer.read_request

            def read_and_keep() -> bytes:
                request = reading()
                if request:
                    self.requests.append(request)
                return request

            peer.read_request = read_and_keep  # type: ignore[method-assign]  # a peer that also keeps what it read
            self._behaviour(peer)
        connection.close()

    def close(self) -> None:
        """Stop listening and wait for every connection's end."""
        # A shut-down wakes the accepting thread, which a mere close does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


Serve = Callable[..., RawServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[RawServer] = []

    def start(behaviour: Callable[[Peer], None], context: ssl.SSLContext | None = None) -> RawServer:
        servers.append(RawServer(behaviour, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def transport() -> Iterator[PlatformTransport]:
    transport = PlatformTransport()
    yield transport
    transport.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 with its key, and the same without it, to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("certificates")
    trusted, own = directory / "trusted.pem", directory / "own.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    own.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + trusted.read_bytes()
    )
    return own, trusted


@pytest.fixture
def tls(certificates: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[0])
    return context


def request_to(port: int, scheme: str = "http") -> Request:
    return WABLAS.build_request(MESSAGE, account_at(port, scheme))


def account_at(port: int, scheme: str = "http", host: str = "127.0.0.1") -> Account:
    return Account(f"{scheme}://{host}:{port}", {"token": SECRETS[0], "secret_key": SECRETS[1]})


def timed(transport: PlatformTransport, request: Request, seconds: float, **named: Any) -> tuple[Outcome, float]:
    started = time.monotonic()
    outcome = transport.send(request, WABLAS, seconds, **named)
    return outcome, time.monotonic() - started


def nothing(peer: Peer) -> None:
    """Accept, and neither read nor answer until the client goes."""
    peer.wait_for_hang_up()


# --- what proves that nothing was sent -------------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_refused_connection_may_be_tried_again(transport: PlatformTransport) -> None:
    outcome = transport.send(request_to(closed_port()), WABLAS, 5)
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.scope) == ("unreachable", Scope.SERVICE)


def test_a_name_without_an_address_may_be_tried_again(
    transport: PlatformTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_name(*_arguments: Any, **_named: Any) -> Any:
        # The resolver's own answer, given here so that no query leaves the machine.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    request = WABLAS.build_request(MESSAGE, account_at(443, "https", "nowhere.invalid"))
    outcome = transport.send(request, WABLAS, 5)
    assert isinstance(outcome, Retryable)
    assert "NameResolutionError" in outcome.reason


def test_a_connection_that_is_not_made_in_time_may_be_tried_again(transport: PlatformTransport) -> None:
    # A listener whose queue is full leaves further connections unanswered, like a host that drops packets.
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        outcome, seconds = timed(transport, request_to(listener.getsockname()[1]), 0.5)
    assert isinstance(outcome, Retryable)
    assert outcome.code == "connect_timeout"
    assert seconds < 2


def test_a_certificate_that_is_not_trusted_is_a_matter_of_configuration(
    serve: Serve, transport: PlatformTransport, tls: ssl.SSLContext
) -> None:
    server = serve(lambda peer: peer.answer(TAKEN) if peer.read_request() else None, tls)
    outcome = transport.send(request_to(server.port, "https"), WABLAS, 5)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.scope) == ("certificate_untrusted", Scope.CONFIG)
    assert server.requests == []


def test_a_certificate_of_another_name_is_a_matter_of_configuration(
    serve: Serve, tls: ssl.SSLContext, certificates: tuple[Path, Path]
) -> None:
    server = serve(lambda peer: peer.answer(TAKEN) if peer.read_request() else None, tls)
    transport = PlatformTransport(ca_file=certificates[1])
    outcome = transport.send(WABLAS.build_request(MESSAGE, account_at(server.port, "https", "localhost")), WABLAS, 5)
    transport.close()
    assert isinstance(outcome, Rejected)
    assert outcome.scope is Scope.CONFIG
    assert server.requests == []


def test_a_request_that_cannot_be_made_is_rejected_and_sends_nothing(transport: PlatformTransport) -> None:
    for url in ("", "nonsense", "http://", "http://[::1", "http://127.0.0.1:99999/"):
        outcome = transport.send(Request("POST", url, {}), WABLAS, 2)
        assert isinstance(outcome, Rejected | Retryable | Unknown)
        assert not isinstance(outcome, Unknown), url
    outcome = transport.send(Request("POST", "http://127.0.0.1:1/", {"X": "a\r\nb"}), WABLAS, 2)
    assert isinstance(outcome, Rejected)
    assert outcome.scope is Scope.CONFIG


# --- what proves nothing ---------------------------------------------------------------------------------


def half_of_the_body(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + TAKEN)


def garbage_status_line(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def cut_headers(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: applica")


def close_before_reading(peer: Peer) -> None:
    peer.wait_for_bytes()


def reset_before_reading(peer: Peer) -> None:
    peer.wait_for_bytes()
    peer.reset()


def close_after_reading(peer: Peer) -> None:
    peer.read_request()


def reset_after_reading(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def broken_chunks(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense")


def two_lengths(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello")


def broken_compression(peer: Peer) -> None:
    peer.read_request()
    peer.answer(b"this is not gzip", "200 OK", "Content-Encoding: gzip")


def endless_headers(peer: Peer) -> None:
    peer.read_request()
    peer.connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % each for each in range(500)) + b"\r\n")


@pytest.mark.parametrize(
    "behaviour",
    [
        close_before_reading,
        reset_before_reading,
        close_after_reading,
        reset_after_reading,
        half_of_the_body,
        garbage_status_line,
        cut_headers,
        broken_chunks,
        two_lengths,
        broken_compression,
        endless_headers,
    ],
    ids=[
        "closed before reading",
        "reset before reading",
        "closed after reading",
        "reset after reading",
        "body shorter than announced",
        "garbage instead of a status line",
        "headers cut off",
        "broken chunks",
        "two content lengths",
        "broken compression",
        "too many headers",
    ],
)
def test_a_broken_exchange_is_in_doubt_and_can_be_looked_up(
    serve: Serve, transport: PlatformTransport, behaviour: Callable[[Peer], None]
) -> None:
    server = serve(behaviour)
    outcome, seconds = timed(transport, request_to(server.port), 5)
    assert isinstance(outcome, Unknown)
    assert outcome.lookup == "m-1"
    assert server.connections == 1
    assert len(server.requests) <= 1
    assert seconds < 4


def test_a_reply_that_never_comes_is_in_doubt_at_the_deadline(serve: Serve, transport: PlatformTransport) -> None:
    def stay_silent(peer: Peer) -> None:
        peer.read_request()
        peer.wait_for_hang_up()

    server = serve(stay_silent)
    outcome, seconds = timed(transport, request_to(server.port), 0.5)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "no_reply"
    assert 0.4 < seconds < 1.5
    assert len(server.requests) == 1


def test_a_stalled_tls_handshake_is_in_doubt_at_the_deadline(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(nothing)
    outcome, seconds = timed(transport, request_to(server.port, "https"), 0.5)
    assert isinstance(outcome, Unknown)
    assert seconds < 1.5


def test_a_connection_closed_during_the_handshake_is_in_doubt(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(lambda peer: peer.connection.recv(1))
    assert isinstance(transport.send(request_to(server.port, "https"), WABLAS, 5), Unknown)


def drip(peer: Peer, data: bytes, pause: float = 0.05) -> None:
    peer.read_request()
    for value in data:
        peer.connection.sendall(bytes([value]))
        time.sleep(pause)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + TAKEN + b" " * 900,
        b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 900,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
    ],
    ids=["body", "headers", "chunks", "interim replies"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_drip_ends_at_the_total_deadline(
    serve: Serve, tls: ssl.SSLContext, certificates: tuple[Path, Path], reply: bytes, scheme: str
) -> None:
    server = serve(lambda peer: drip(peer, reply), tls if scheme == "https" else None)
    transport = PlatformTransport(ca_file=certificates[1])
    outcome, seconds = timed(transport, request_to(server.port, scheme), 0.6)
    transport.close()
    assert isinstance(outcome, Unknown)
    assert 0.5 < seconds < 1.2


def test_a_request_the_peer_never_takes_in_ends_at_the_deadline(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(lambda peer: time.sleep(1.5))
    plain = request_to(server.port)
    large = Request(plain.method, plain.url, plain.headers, b"x" * 30_000_000, plain.reference)
    outcome, seconds = timed(transport, large, 0.6)
    assert isinstance(outcome, Unknown)
    assert seconds < 1.2


def test_an_endless_reply_is_cut_and_in_doubt(serve: Serve, transport: PlatformTransport) -> None:
    sent = 0

    def flood(peer: Peer) -> None:
        nonlocal sent
        peer.read_request()
        peer.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 50 * LONGEST_REPLY_BYTES:
            peer.connection.sendall(b"x" * 65_536)
            sent += 65_536

    server = serve(flood)
    outcome = transport.send(request_to(server.port), WABLAS, 10)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "reply_too_long"
    server.close()
    assert sent < 20 * LONGEST_REPLY_BYTES


def test_a_small_reply_that_unpacks_into_an_endless_one_is_cut(serve: Serve, transport: PlatformTransport) -> None:
    packed = gzip.compress(b" " * (20 * LONGEST_REPLY_BYTES))
    assert len(packed) < LONGEST_REPLY_BYTES
    server = serve(
        lambda peer: peer.answer(packed, "200 OK", "Content-Encoding: gzip") if peer.read_request() else None
    )
    outcome = transport.send(request_to(server.port), WABLAS, 5)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "reply_too_long"


# --- whole replies ---------------------------------------------------------------------------------------


def test_a_whole_reply_is_read_by_its_contract(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(lambda peer: peer.answer(TAKEN) if peer.read_request() else None)
    assert transport.send(request_to(server.port), WABLAS, 5) == Accepted("u-1", "pending")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/send-message HTTP/1.1\r\n")
    assert body == b"phone=6281234567890&message=hello&ref_id=m-1"


def test_the_same_holds_under_tls(serve: Serve, tls: ssl.SSLContext, certificates: tuple[Path, Path]) -> None:
    server = serve(lambda peer: peer.answer(TAKEN) if peer.read_request() else None, tls)
    transport = PlatformTransport(ca_file=certificates[1])
    assert transport.send(request_to(server.port, "https"), WABLAS, 5) == Accepted("u-1", "pending")
    transport.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/elsewhere", "http://[broken", "", "//", "\x85"])
def test_a_redirect_is_not_followed(serve: Serve, transport: PlatformTransport, status: str, location: str) -> None:
    def redirect(peer: Peer) -> None:
        while peer.read_request():
            peer.answer(b"", status, "Location: " + location.format(port=server.port))

    server = serve(redirect)
    outcome = transport.send(request_to(server.port), WABLAS, 5)
    assert isinstance(outcome, Rejected)
    assert outcome.scope is Scope.CONFIG
    assert len(server.requests) == 1


def test_a_throttle_tells_how_long_to_wait(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(lambda peer: peer.answer(b"", "429 Slow down", "Retry-After: 7") if peer.read_request() else None)
    outcome = transport.send(request_to(server.port), WABLAS, 5)
    assert isinstance(outcome, Retryable)
    assert outcome.after_seconds == 7


def test_a_failing_status_is_sent_once(serve: Serve, transport: PlatformTransport) -> None:
    def fail(peer: Peer) -> None:
        while peer.read_request():
            peer.answer(b"", "503 Busy", "Retry-After: 0")

    server = serve(fail)
    assert isinstance(transport.send(request_to(server.port), WABLAS, 5), Unknown)
    assert len(server.requests) == 1


def keep_answering(peer: Peer) -> None:
    while peer.read_request():
        peer.answer(TAKEN, "200 OK", "Set-Cookie: session=abc; Path=/")


def test_connections_are_reused_and_cookies_are_not_kept(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(keep_answering)
    for _ in range(20):
        assert isinstance(transport.send(request_to(server.port), WABLAS, 5), Accepted)
    assert server.connections == 1
    assert len(server.requests) == 20
    assert not any(b"cookie" in request.lower() for request in server.requests)
    transport.close()


def test_threads_share_connections_and_never_mix_replies(serve: Serve, transport: PlatformTransport) -> None:
    def echo(peer: Peer) -> None:
        while request := peer.read_request():
            reference = request.rpartition(b"ref_id=")[2].decode()
            peer.answer(b'{"status":true,"data":{"messages":[{"id":"%s"}]}}' % reference.encode())

    server = serve(echo)

    def send(number: int) -> tuple[int, Outcome]:
        message = PlatformMessage(reference=f"m-{number}", to="6281234567890", kind="text", body="x")
        return number, transport.send(WABLAS.build_request(message, account_at(server.port)), WABLAS, 5)

    with ThreadPoolExecutor(8) as threads:
        for number, outcome in threads.map(send, range(200)):
            assert outcome == Accepted(f"m-{number}", "")
    assert len(server.requests) == 200
    assert server.connections <= 8
    transport.close()


def test_an_idle_connection_is_replaced_before_its_server_may_close_it(
    serve: Serve, transport: PlatformTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.platforms.connections.IDLE_SECONDS", 0.0)
    server = serve(keep_answering)
    for _ in range(2):
        assert isinstance(transport.send(request_to(server.port), WABLAS, 5), Accepted)
    assert server.connections == 2
    transport.close()


def test_a_connection_its_server_has_closed_is_not_reused(serve: Serve, transport: PlatformTransport) -> None:
    closed = threading.Event()

    def answer_once(peer: Peer) -> None:
        peer.read_request()
        peer.answer(TAKEN)
        peer.connection.close()
        closed.set()

    server = serve(answer_once)
    for _ in range(3):
        assert isinstance(transport.send(request_to(server.port), WABLAS, 5), Accepted)
        assert closed.wait(PATIENCE)
        closed.clear()
    assert server.connections == 3


# --- proxies ---------------------------------------------------------------------------------------------


def test_proxies_and_credentials_of_the_environment_are_not_used(
    serve: Serve, transport: PlatformTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, server = serve(keep_answering), serve(keep_answering)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    assert isinstance(transport.send(request_to(server.port), WABLAS, 5), Accepted)
    assert proxy.connections == 0
    assert b"Authorization: invented-token.invented-secret" in server.requests[0]
    transport.close()


def tunnel(peer: Peer) -> None:
    """Be a CONNECT proxy."""
    target = peer.read_request().split(b" ")[1].decode()
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as upstream:
        peer.connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")

        def backwards() -> None:
            with contextlib.suppress(OSError):
                while data := upstream.recv(65_536):
                    peer.connection.sendall(data)
                peer.connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=backwards)
        thread.start()
        with contextlib.suppress(OSError):
            while data := peer.connection.recv(65_536):
                upstream.sendall(data)
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def test_a_device_s_proxy_carries_its_requests_and_nobody_else_s(
    serve: Serve, tls: ssl.SSLContext, certificates: tuple[Path, Path]
) -> None:
    proxy, server = serve(tunnel), serve(keep_answering, tls)
    transport = PlatformTransport(ca_file=certificates[1])
    address = f"http://127.0.0.1:{proxy.port}"
    for _ in range(3):
        outcome = transport.send(request_to(server.port, "https"), WABLAS, 5, proxy=address)
        assert isinstance(outcome, Accepted)
    assert proxy.connections == server.connections == 1
    assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"invented" not in proxy.requests[0]
    assert isinstance(transport.send(request_to(server.port, "https"), WABLAS, 5), Accepted)
    assert (proxy.connections, server.connections) == (1, 2)
    transport.close()


def test_a_proxy_that_is_away_may_be_tried_again(transport: PlatformTransport) -> None:
    for scheme in ("http", "https"):
        outcome = transport.send(
            request_to(closed_port(), scheme),
            WABLAS,
            5,
            proxy=f"http://user:invented-token@127.0.0.1:{closed_port()}",
        )
        assert isinstance(outcome, Retryable)
        assert outcome.code == "proxy_unreachable"
        assert outcome.scope is Scope.CONFIG


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Authenticate\r\n\r\n", b"HTTP/1.1 502 Bad\r\n\r\n", b"", b"nonsense"]
)
def test_a_proxy_that_opens_no_tunnel_proves_that_nothing_was_sent(
    serve: Serve, transport: PlatformTransport, answer: bytes
) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.connection.sendall(answer)

    proxy, server = serve(refuse), serve(keep_answering)
    outcome = transport.send(request_to(server.port, "https"), WABLAS, 5, proxy=f"http://127.0.0.1:{proxy.port}")
    assert isinstance(outcome, Retryable)
    assert outcome.code == "proxy_refused"
    assert server.connections == 0


def test_a_proxy_that_stalls_proves_that_nothing_was_sent(serve: Serve, transport: PlatformTransport) -> None:
    proxy = serve(nothing)
    outcome, seconds = timed(transport, request_to(closed_port(), "https"), 0.5, proxy=f"http://127.0.0.1:{proxy.port}")
    assert isinstance(outcome, Retryable)
    assert seconds < 1.5


def test_a_proxy_that_is_no_address_is_a_matter_of_configuration(transport: PlatformTransport) -> None:
    for proxy in ("socks5://127.0.0.1:1", "http://", "http://[broken", "ftp://127.0.0.1:1"):
        outcome = transport.send(request_to(closed_port(), "https"), WABLAS, 2, proxy=proxy)
        assert isinstance(outcome, Rejected | Retryable), proxy
        assert outcome.scope is Scope.CONFIG, proxy


# --- secrets ---------------------------------------------------------------------------------------------


def test_a_credential_that_a_provider_writes_back_is_struck_out(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(
        lambda peer: (
            peer.answer(b'{"status":false,"message":"token invalid: invented-token.invented-secret"}')
            if peer.read_request()
            else None
        )
    )
    outcome = transport.send(request_to(server.port), WABLAS, 5)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "token invalid: ***.***"


def test_no_failure_tells_an_address_or_a_credential_to_a_log_or_an_outcome(
    serve: Serve,
    transport: PlatformTransport,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    account = Account("http://127.0.0.1:{port}", {"device_id": "invented-token"})
    behaviours = [
        cut_headers,
        garbage_status_line,
        reset_after_reading,
        close_after_reading,
        half_of_the_body,
    ]
    ports = [closed_port(), *(serve(each).port for each in behaviours)]
    told = []
    for port in ports:
        request = WHACENTER.build_check(Account(f"http://127.0.0.1:{port}/api", account.credentials))
        assert request is not None
        assert "invented-token" in request.url
        told += [
            repr(transport.send(request, WHACENTER, 2)),
            repr(transport.check(request, WHACENTER, 2)),
            repr(request),
        ]
    told += [caplog.text, *(repr(record.__dict__) for record in caplog.records), *capfd.readouterr()]
    assert not [text for text in told if "invented" in text or "statusDevice" in text]


# --- contracts that break, look-ups and checks -----------------------------------------------------------


class BrokenReader(type(WABLAS)):  # type: ignore[misc]  # the class of an instance is no static base
    """A contract whose every reader breaks."""

    def parse_reply(self, *_arguments: Any) -> Any:
        raise RuntimeError("invented-token")

    parse_lookup = parse_check = parse_reply


def test_a_reader_that_breaks_leaves_the_message_in_doubt(serve: Serve, transport: PlatformTransport) -> None:
    server = serve(keep_answering)
    contract = BrokenReader()
    outcome = transport.send(request_to(server.port), contract, 5)
    assert isinstance(outcome, Unknown)
    assert "RuntimeError" in outcome.reason
    assert "invented" not in repr(outcome)
    found = transport.look_up(request_to(server.port), contract, "m-1", 5)
    assert isinstance(found, Unknown)
    assert transport.check(request_to(server.port), contract, 5).state is AccountState.UNKNOWN
    transport.close()


def test_a_look_up_or_check_that_cannot_be_made_says_so(transport: PlatformTransport) -> None:
    account = account_at(closed_port())
    lookup, check = WABLAS.build_lookup("m-1", account), WABLAS.build_check(account)
    assert lookup is not None
    assert check is not None
    outcome = transport.look_up(lookup, WABLAS, "m-1", 2)
    assert isinstance(outcome, Unknown)
    assert outcome.lookup == "m-1"
    assert transport.check(check, WABLAS, 2).state is AccountState.UNKNOWN
