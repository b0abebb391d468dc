"""A loopback web server with one small picture, for messages with media."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cf50000003010101a1d8d0c50000000049454e44ae426082"
)


@contextlib.contextmanager
def file_server() -> Iterator[str]:
    """Serve ``/parcel.png``; yield the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/parcel.png" else 404)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(_PICTURE)))
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked may be killed meanwhile
                self.wfile.write(_PICTURE)

        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
