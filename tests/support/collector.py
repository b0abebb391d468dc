"""A collector of traces on loopback: takes OTLP over HTTP, and shows what it took."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

#: What is still to be exported.
WAITING = "select message_id::text from traced_message union all select encode(span_id, 'hex') from traced_request"


@dataclass(frozen=True)
class Taken:
    """A span as it arrived; ids are in hexadecimal digits, as a traceparent has them."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    status: int
    resource: dict[str, Any]

    @property
    def failed(self) -> bool:
        return self.status == otlp.Status.STATUS_CODE_ERROR

    @property
    def outcome(self) -> Any:
        return self.attributes.get("salamander.outcome")

    @property
    def message(self) -> Any:
        return self.attributes.get("salamander.message.id")


class Collector(ThreadingHTTPServer):
    """Answers as ``behave`` says: a status, or ``lost`` (it takes the spans, and breaks the connection)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave: int | str = 200
        self.refuses = 0
        self.asked = 0
        self.taken: list[Taken] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed leave broken connections."""

    def of_trace(self, trace: str) -> list[Taken]:
        """Return the spans of a trace as whoever asks a collector sees them: the last of each id."""
        with self.lock:
            return list({each.id: each for each in self.taken if each.trace == trace}.values())

    def of_message(self, message: int) -> list[Taken]:
        """Return the spans of a message, likewise."""
        with self.lock:
            return list({each.id: each for each in self.taken if each.message == message}.values())


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        what = server.behave
        with server.lock:
            server.asked += 1
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            if what in {200, "lost"}:
                server.taken += _spans_of(body)
        if what == "lost":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        answer = ExportTraceServiceResponse()
        if server.refuses:
            answer.partial_success.rejected_spans = server.refuses
        raw = answer.SerializeToString() if what == 200 else b"no"
        self.send_response(int(what))
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _spans_of(body: bytes) -> list[Taken]:
    return [
        Taken(
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            name=span.name,
            kind=span.kind,
            began_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            attributes=_values(span.attributes),
            status=span.status.code,
            resource=_values(told.resource.attributes),
        )
        for told in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in told.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in pairs}
