"""Who calls: API keys, what each may do and see, and how often.

A key is found by its public part and checked by its hash, in a time that tells nothing. What is known of keys is read
anew every second while requests come, so a revoked one ends within that time; a key that is not known yet is looked for
at once.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from config.api_keys import SCOPES, digest_of, public_id
from config.errors import NotFound, Refused, StorageUnavailable
from gateway.problems import problem_of
from storage import keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.context import Context
    from storage.keys import ApiKey

#: How long what is known of keys is taken for true, and how long while PostgreSQL is away, in seconds.
_FRESH_SECONDS = 1.0
_STALE_SECONDS = 60.0
#: How often keys are looked for because one is not known, at most, in seconds.
_LOOK_AGAIN_SECONDS = 0.2
_API = "/v1/"


class NotAllowed(Refused):
    """The caller may not do that. ``headers`` say what would be allowed, or when."""

    def __init__(self, sentence: str, next_step: str, *, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence, next_step, code=code)
        self.headers = headers


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        key_id: the public part of the key.
        scope: what it may do.
        devices: the names of the devices it is bound to, by their ids; None: it sees every device.
    """

    key_id: str
    scope: str
    devices: dict[int, str] | None

    def may(self, scope: str) -> bool:
        """Return whether it may do what needs ``scope``."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def device_ids(self) -> list[int] | None:
        """The ids of the devices it sees; None: all."""
        return None if self.devices is None else list(self.devices)

    def sees(self, device_id: int) -> bool:
        """Return whether it sees a device."""
        return self.devices is None or device_id in self.devices

    def check_name(self, name: str) -> None:
        """Refuse a device that this caller does not see, in the words for one that does not exist.

        Raises:
            NotFound: it does not see it.
        """
        if self.devices is not None and name not in self.devices.values():
            raise unknown_device(name)


def unknown_device(name: str) -> NotFound:
    """Return the error of a device that does not exist, or that the caller does not see."""
    return NotFound(f"There is no device named {name!r}.", "See GET /v1/devices.", code="unknown_device")


class Allowance:
    """How many requests a key may still send: a bucket that holds a minute's worth and fills evenly."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._left = float(per_minute)
        self._at = now

    def take(self, now: float) -> float:
        """Take one request; return 0, or after how many seconds there is one to take."""
        self._left = min(self.per_minute, self._left + (now - self._at) * self.per_minute / 60.0)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) * 60.0 / self.per_minute


class Keys:
    """The keys of one installation, as one gateway knows them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys: dict[str, ApiKey] = {}
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._allowances: dict[str, Allowance] = {}

    async def caller_of(self, key: str) -> Caller:
        """Return who sends ``key``, and count the request.

        Raises:
            NotAllowed: the key is not one of ours, or it has sent too many requests.
            StorageUnavailable: it cannot be looked up now.
        """
        found = await self._find(public_id(key))
        # An unknown key is compared, too, so that the time tells nothing.
        expected = found.digest if found is not None else bytes(32)
        if not hmac.compare_digest(digest_of(key), expected) or found is None:
            raise _no_key("The API key is not known, or was revoked.")
        self._count(found)
        return Caller(found.public_id, found.scope, found.devices)

    async def _find(self, key_id: str | None) -> ApiKey | None:
        age = time.monotonic() - self._read_at
        if age > _FRESH_SECONDS or (key_id not in self._keys and age > _LOOK_AGAIN_SECONDS):
            await self._read(age)
        return self._keys.get(key_id or "")

    async def _read(self, age: float) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at < _LOOK_AGAIN_SECONDS:
                return  # somebody else did while this one waited
            try:
                self._keys = await self._context.read(keys.usable)
            except StorageUnavailable:
                if age > _STALE_SECONDS:
                    raise
                return
            self._read_at = time.monotonic()
            self._allowances = {known: each for known, each in self._allowances.items() if known in self._keys}

    def _count(self, key: ApiKey) -> None:
        per_minute = key.per_minute if key.per_minute is not None else self._context.settings.requests_per_minute
        if per_minute == 0:
            return
        now = time.monotonic()
        allowance = self._allowances.get(key.public_id)
        if allowance is None or allowance.per_minute != per_minute:
            allowance = self._allowances[key.public_id] = Allowance(per_minute, now)
        wait = allowance.take(now)
        if wait:
            raise NotAllowed(
                f"The key may send {per_minute} requests a minute, and has.",
                "Wait as Retry-After says, or send batches.",
                code="too_many_requests",
                headers={"Retry-After": str(math.ceil(wait))},
            )


class Authentication:
    """ASGI middleware: nothing under /v1 is reached without a key."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._keys = Keys(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who calls, or refuse."""
        if scope["type"] == "http" and scope["path"].startswith(_API):
            try:
                scope["caller"] = await self._keys.caller_of(key_in(scope))
            except (NotAllowed, StorageUnavailable) as error:
                await problem_of(error, headers=getattr(error, "headers", None))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def key_in(scope: Scope) -> str:
    """Return the key that a request brings.

    Raises:
        NotAllowed: it brings none.
    """
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return str(key.strip())
            break
    raise _no_key("The request has no API key.")


def _no_key(sentence: str) -> NotAllowed:
    next_step = "Make one with run.py key create, and send it as Authorization: Bearer KEY."
    return NotAllowed(sentence, next_step, code="no_key", headers={"WWW-Authenticate": "Bearer"})


def _needs(scope: str) -> Callable[[Request], Awaitable[Caller]]:
    async def check(request: Request) -> Caller:
        caller: Caller = request.scope["caller"]
        if not caller.may(scope):
            sentence = f"This needs a key with the scope {scope}; yours has {caller.scope}."
            raise NotAllowed(sentence, f"Make one: run.py key create --scope {scope}", code="scope_missing")
        return caller

    return check


async def _unbound(request: Request) -> None:
    caller: Caller = request.scope["caller"]
    if caller.devices is not None:
        sentence = "This concerns every device; your key is bound to some."
        raise NotAllowed(sentence, "Use a key without --device.", code="bound_key")


#: The caller of an operation, with what it must be allowed to do.
Reader = Annotated[Caller, Depends(_needs("read"))]
Sender = Annotated[Caller, Depends(_needs("send"))]
Admin = Annotated[Caller, Depends(_needs("admin"))]
#: For an operation that concerns every device.
Unbound = Depends(_unbound)
