"""The address /metrics, and the sums behind it.

No key is needed on this machine: when the gateway listens on loopback, and the request came neither from elsewhere nor
through a proxy. From anywhere else it takes a key that is bound to no device. What is told are counts, never
numbers or texts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from psycopg.conninfo import conninfo_to_dict

from config.errors import StorageUnavailable
from config.logging import logger
from gateway.callers import Keys, NotAllowed, key_in
from gateway.metrics.families import of_processes, of_reading
from gateway.metrics.processes import uses
from storage import metrics
from storage.database import WHATSMEOW_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from gateway.context import Context

#: How often what is new is summed, and while there is much of it; how long an answer is given again; in seconds.
_SUM_SECONDS = 10.0
_MORE_SECONDS = 0.05
_FRESH_SECONDS = 1.0
#: What a proxy adds to requests that it hands on.
_FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


class _Families:
    """Metrics that are known already, as a registry wants them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._families


class Exposition:
    """What /metrics tells. PostgreSQL and the processes are asked at most once a second."""

    def __init__(self, context: Context) -> None:
        self._context = context
        url = context.settings.whatsmeow_database_url
        named = None if url is None else conninfo_to_dict(url.get_secret_value()).get("dbname")
        self._databases = [str(named or WHATSMEOW_DATABASE)]
        self._reading = asyncio.Lock()
        self._read_at = -_FRESH_SECONDS
        self._text = b""

    async def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        async with self._reading:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                try:
                    reading = await self._context.read(lambda connection: metrics.read(connection, self._databases))
                except StorageUnavailable:
                    reading = None
                self._text = await asyncio.to_thread(self._render, reading)
                self._read_at = time.monotonic()
            return self._text + generate_latest(self._context.counts.registry)

    def _render(self, reading: metrics.Reading | None) -> bytes:
        families = [*of_reading(reading, datetime.now(UTC)), *of_processes(uses(self._context.home))]
        registry = CollectorRegistry()
        registry.register(_Families(families))
        return generate_latest(registry)


def router(context: Context) -> APIRouter:
    """Return the address of the metrics."""
    routes = APIRouter()
    exposition = Exposition(context)
    keys = Keys(context)
    here_only = ipaddress.ip_address(context.settings.gateway_address).is_loopback

    @routes.get("/metrics", include_in_schema=False)
    async def show(request: Request) -> Response:
        if not (here_only and _is_from_here(request)):
            caller = await keys.caller_of(key_in(request.scope))
            if caller.devices is not None:
                sentence = "Metrics tell of every device; your key is bound to some."
                raise NotAllowed(sentence, "Use a key without --device.", code="bound_key")
        return Response(await exposition.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def _is_from_here(request: Request) -> bool:
    if request.client is None or _FORWARDED.intersection(request.headers.keys()):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def keep_summing(context: Context) -> None:
    """Sum what is new, bit by bit, for as long as the gateway serves."""
    while True:
        more = False
        try:
            more = await context.read(metrics.sum_up)
        except StorageUnavailable as error:
            logger().debug("The metrics' sums wait", reason=error.sentence)
        except Exception as error:  # noqa: BLE001 - it must go on; a reading adds what is not summed
            logger().error("The metrics' sums failed", exc_info=error)
        await asyncio.sleep(_MORE_SECONDS if more else _SUM_SECONDS)
