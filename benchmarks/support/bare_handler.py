"""The least a FastAPI handler can do: check a message, insert one row, answer. What the gateway is compared with.

    python -m benchmarks.support.bare_handler [DEVICE_ID]      (the database's URL stands on standard input)

It prints its port. The same server, protocol and body as the gateway's; no keys, no rules, no router. With a device's
id it writes the outbox's own row and story, by the same statement as the router, instead of a row of four columns: what
is left between it and the gateway is not PostgreSQL's.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Sequence

import uvicorn
from fastapi import FastAPI, Response
from psycopg_pool import AsyncConnectionPool

from gateway.api.messages import Batch, NewMessage
from gateway.server import bind
from storage import outbox
from storage.sql import queries

#: As many connections as make it fastest here; more only wait for each other.
_CONNECTIONS = 8
_TABLE = """
create table if not exists bare_message (
    id bigint generated always as identity primary key, device text, recipient text, body text,
    created_at timestamptz not null default now()
)
"""
_INSERT = "insert into bare_message (device, recipient, body) values (%s, %s, %s) returning id"
_INSERT_MANY = (
    "insert into bare_message (device, recipient, body)"
    " select * from unnest(%s::text[], %s::text[], %s::text[]) returning id"
)


def create_app(url: str, device_id: int | None) -> FastAPI:
    """Return the application."""
    pool = AsyncConnectionPool(
        url, min_size=_CONNECTIONS, max_size=_CONNECTIONS, open=False, kwargs={"autocommit": True}
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            async with pool.connection() as connection:
                await connection.execute(_TABLE)
            yield

    app = FastAPI(lifespan=lifespan)

    async def accept(messages: Sequence[NewMessage]) -> list[int]:
        new = [
            outbox.NewMessage(device_id or 0, each.to.lstrip("+"), "text", each.text, idempotency_key=uuid.uuid4().hex)
            for each in messages
        ]
        async with pool.connection() as connection:
            cursor = await connection.execute(queries("outbox")["accept"], outbox.columns_of(new))
            return [row[0] for row in await cursor.fetchall()]

    @app.post("/v1/messages", status_code=202)
    async def send(message: NewMessage) -> Response:
        if device_id is not None:
            return _answer({"id": (await accept([message]))[0]})
        async with pool.connection() as connection:
            cursor = await connection.execute(_INSERT, (message.device, message.to, message.text))
            row = await cursor.fetchone()
        return _answer({"id": row[0] if row else None})

    @app.post("/v1/messages/batch")
    async def send_batch(batch: Batch) -> Response:
        if device_id is not None:
            return _answer({"results": [{"id": each} for each in await accept(batch.messages)]})
        columns = list(zip(*((each.device, each.to, each.text) for each in batch.messages), strict=True))
        async with pool.connection() as connection:
            cursor = await connection.execute(_INSERT_MANY, [list(column) for column in columns])
            rows = await cursor.fetchall()
        return _answer({"results": [{"id": row[0]} for row in rows]})

    return app


def _answer(body: object) -> Response:
    return Response(json.dumps(body), 202, media_type="application/json")


def main() -> None:
    """Serve until killed."""
    listening = bind("127.0.0.1", 0)
    app = create_app(sys.stdin.readline().strip(), int(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, http="h11", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
