"""Fetching the file that a message refers to, from a server that does whatever the path asks for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from actors import media
from actors.media import MediaNotFetched, fetch_media

FILE = bytes(range(256)) * 1000


class _Host(BaseHTTPRequestHandler):
    """Serves the file, or the fault that the path names."""

    def do_GET(self) -> None:
        _, what, *rest = self.path.split("/")
        with contextlib.suppress(OSError):
            match what:
                case "status":
                    self.send_response(int(rest[0]))
                    self.send_header("Location", "/file")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                case "drip":
                    self._begin(len(FILE))
                    for byte in FILE:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.02)
                case "drip-headers":
                    for _ in range(1000):
                        self.wfile.write(b"HTTP/1.0 200 OK\r\n" if _ == 0 else b"X")
                        time.sleep(0.02)
                case "short":
                    self._begin(len(FILE) + 1)
                    self.wfile.write(FILE)
                case "endless":
                    self._begin(None)
                    while True:
                        self.wfile.write(FILE)
                case _:
                    self._begin(len(FILE))
                    self.wfile.write(FILE)

    def _begin(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def refusal(url: str, *, loopback_allowed: bool = True) -> MediaNotFetched:
    with pytest.raises(MediaNotFetched) as refused:
        fetch_media(url, loopback_allowed=loopback_allowed)
    assert "127.0.0.1" not in str(refused.value), "the words may be shown to whoever asked"
    return refused.value


def test_a_file_is_fetched_as_it_is(host: str) -> None:
    assert fetch_media(f"{host}/file", loopback_allowed=True) == FILE


@pytest.mark.parametrize(
    ("status", "for_good"),
    [
        (404, True),
        (403, True),
        (410, True),
        (302, True),
        (408, False),
        (425, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_only_some_answers_are_for_good(host: str, status: int, for_good: bool) -> None:
    refused = refusal(f"{host}/status/{status}")
    assert str(status) in str(refused)
    assert refused.for_good == for_good


@pytest.mark.parametrize("fault", ["drip", "drip-headers"])
def test_a_server_that_drips_is_given_up_in_time(host: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MEDIA_SECONDS", 0.3)
    began = time.monotonic()
    assert not refusal(f"{host}/{fault}").for_good
    assert time.monotonic() - began < 5


def test_a_file_that_breaks_off_is_not_sent_in_part(host: str) -> None:
    assert not refusal(f"{host}/short").for_good


def test_a_file_that_is_too_large_is_refused_without_reading_it_all(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MEDIA_LIMIT_BYTES", len(FILE) - 1)
    assert refusal(f"{host}/file").for_good
    assert refusal(f"{host}/endless").for_good
    monkeypatch.setattr(media, "MEDIA_LIMIT_BYTES", len(FILE))
    assert fetch_media(f"{host}/file", loopback_allowed=True) == FILE


def test_a_server_that_is_not_there_is_tried_again_later(host: str) -> None:
    assert not refusal("http://127.0.0.1:1/file").for_good


@pytest.mark.parametrize("url", ["http:///file", "http://a..b/file", "http://" + "x" * 64 + ".invalid/file"])
def test_a_host_without_address_is_no_host(url: str) -> None:
    refusal(url, loopback_allowed=False)
