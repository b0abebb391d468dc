"""The collector of traces: OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp). It alone loads OpenTelemetry."""

from __future__ import annotations

import os
import time
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp
from opentelemetry.util.re import parse_env_headers

from actors.platforms.connections import OneAttemptAdapter, attempt
from config.version import VERSION
from gateway.tracing.spans import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.tracing.spans import Attributes, Span

#: How long a connection, and a whole request, may take, in seconds.
_CONNECT_SECONDS = 5.0
_SECONDS = 10.0
#: How much of an answer is read, in bytes.
_READ_LIMIT = 4096
#: Where OpenTelemetry's users put what authorises them at their collector, which is secret; the first one wins.
_HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
#: The first bits of a span's flags say whether it is sampled; what is exported is.
_SAMPLED = 1
_KINDS = {
    Kind.INTERNAL: otlp.Span.SPAN_KIND_INTERNAL,
    Kind.SERVER: otlp.Span.SPAN_KIND_SERVER,
    Kind.CLIENT: otlp.Span.SPAN_KIND_CLIENT,
}


class NotTaken(Exception):
    """The collector did not take the spans; they are to be offered again."""


class Collector:
    """Posts spans for one thread.

    Args:
        url: where spans are posted to, path and all.
        instance: tells this installation's spans from those of others.
    """

    def __init__(self, url: str, instance: str) -> None:
        self._url = url
        self._instance = instance
        self._adapter = OneAttemptAdapter(1)
        said = [os.environ.get(name, "") for name in _HEADER_VARIABLES]
        self._headers = parse_env_headers(next(filter(None, said), ""), liberal=True)

    def post(self, spans: Sequence[Span]) -> str:
        """Post spans and return what the collector refused of them for good, in words; empty: nothing.

        Raises:
            NotTaken: it is away, or takes nothing now; the words never hold its address or a secret.
        """
        attempt.deadline = time.monotonic() + _SECONDS
        try:
            return self._post(encode(spans, self._instance))
        except NotTaken:
            raise
        except Exception as error:  # noqa: BLE001 - its text may hold the URL and headers
            raise NotTaken(f"it cannot be reached ({type(error).__name__})") from None
        finally:
            attempt.deadline = None

    def _post(self, body: bytes) -> str:
        request = requests.PreparedRequest()
        headers = {"User-Agent": "Salamander", **self._headers, "Content-Type": "application/x-protobuf"}
        request.prepare("POST", self._url, headers=headers, data=body)
        # Without a session: nothing follows redirects, and nothing is taken from the environment.
        response = self._adapter.send(request, stream=True, timeout=(_CONNECT_SECONDS, _SECONDS), verify=True)
        with closing(response):
            answer = next(response.iter_content(_READ_LIMIT), b"")
            if response.status_code == HTTPStatus.BAD_REQUEST:
                return "it answered 400"
            if response.status_code != HTTPStatus.OK:
                raise NotTaken(f"it answered {response.status_code}")
        try:
            refused = ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
        except DecodeError:
            return ""
        return f"it refused {refused} of them" if refused else ""


def encode(spans: Sequence[Span], instance: str) -> bytes:
    """Return spans as the body of a request."""
    resource = {"service.name": "salamander", "service.version": VERSION, "service.instance.id": instance}
    scope = otlp.ScopeSpans(
        scope=InstrumentationScope(name="salamander", version=VERSION), spans=[_span(each) for each in spans]
    )
    told = otlp.ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[told]).SerializeToString()


def _span(span: Span) -> otlp.Span:
    encoded = otlp.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id or b"",
        flags=_SAMPLED,
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.began_ns,
        end_time_unix_nano=span.ended_ns,
        attributes=_attributes(span.attributes),
    )
    if span.error is not None:
        encoded.status.code = otlp.Status.STATUS_CODE_ERROR
        encoded.status.message = span.error
    return encoded


def _attributes(told: Attributes) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in told.items()
    ]
