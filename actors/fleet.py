"""Fleet: how programs talk to a running daemon. It hides Thespian, and never starts a daemon by accident.

    with Fleet() as fleet:
        message_id = fleet.send("shop-1", "+60123456789", "Your order is ready.")

Requests go to the router actor. While it is being restarted they are asked again, under the same idempotency key,
until the time-out: a send is accepted once or not at all. What can be read (states, messages, restarts) is read from
PostgreSQL, so it can be read whatever is down.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from actors.asking import ASK_SECONDS, PAUSE_SECONDS, is_transient, keyed, no_answer, refusal_of
from actors.endpoint_client import Endpoints
from actors.messages import (
    AddDevice,
    AddKey,
    BatchAnswer,
    CancelMessage,
    DeviceCommand,
    Done,
    Media,
    MessageAccepted,
    MessageRejected,
    OptIn,
    OptOut,
    RecycleShard,
    ResolveMessage,
    RevokeKey,
    SendBatch,
    SendMessage,
    SetFallbacks,
    SetLimits,
)
from actors.requests import Request
from actors.router_connection import RouterConnection
from config.api_keys import digest_of, public_id
from config.errors import AcceptanceUnknown, NoAnswer, StorageUnavailable
from config.home import Home, default_home
from config.settings import load_settings
from config.trace_context import TraceContext
from storage import breakers, care, devices, fallbacks, keys, outbox, restarts
from storage.care import Limits, OptedOut
from storage.credentials import CredentialSeal
from storage.database import Row, SingleConnection, database_url
from storage.devices import ComingUp, Companion, Device
from storage.leases import holder_name


class Fleet:
    """A connection to the daemon of one home.

    Args:
        home: the home directory; None: ``SALAMANDER_HOME`` or ``~/.salamander``.
        timeout: how long each call may take, in seconds, restarts of the router included.

    Raises:
        DaemonNotRunning: no daemon runs on that home; nothing is started.
    """

    def __init__(self, home: Path | str | None = None, *, timeout: float = 30.0) -> None:
        self._home = Home(Path(home).expanduser().absolute() if home is not None else default_home().absolute())
        self._timeout = timeout
        settings = load_settings(self._home)
        self._router = RouterConnection(self._home)
        self._database = SingleConnection(database_url(self._home, settings))

    @cached_property
    def endpoints(self) -> Endpoints:
        """Webhook endpoints."""
        return Endpoints(self._done, self._database, CredentialSeal(self._home.credentials_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; the daemon goes on."""
        self._database.close()
        self._router.close()

    # --- messages ----------------------------------------------------------------------------------------

    def send(
        self,
        device: str,
        to: str,
        text: str = "",
        *,
        media: Media | None = None,
        template: bool = False,
        idempotency_key: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        traceparent: str | None = None,
    ) -> int:
        """Have ``device`` send a message and return its id. It is committed when this returns.

        ``traceparent`` (W3C) says where it belongs in a trace, should traces be exported.

        Raises:
            Refused: the message was rejected (``code`` says why); nothing was changed.
            AcceptanceUnknown: no answer in time; sending again with the error's ``key`` (``idempotency_key``, or one
                that was made for it) is safe.
        """
        message = SendMessage(
            device=device,
            to=to,
            text=text,
            media=media,
            template=template,
            idempotency_key=idempotency_key or None,
            priority=priority,
            not_before=not_before,
            expires_at=expires_at,
            trace=TraceContext.parse(traceparent) if traceparent else None,
        )
        sent = keyed(message)
        try:
            answer = self._ask(sent)
            if isinstance(answer, MessageAccepted):
                return answer.id
            raise refusal_of(answer)
        except (NoAnswer, StorageUnavailable) as error:
            # An earlier question may have been carried out, and its answer lost.
            found = self._accepted_under(sent.idempotency_key) if message.idempotency_key is None else None
            if found is not None:
                return found
            raise AcceptanceUnknown(str(sent.idempotency_key), error.sentence) from None

    def _accepted_under(self, key: str | None) -> int | None:
        """Return the id of the message with this key, as far as that can be read."""
        with contextlib.suppress(StorageUnavailable):
            return next((int(row["id"]) for row in self.messages(key=key)), None)
        return None

    def send_batch(self, messages: Sequence[SendMessage]) -> list[MessageAccepted | MessageRejected]:
        """Send up to 500 messages, committed together; return one answer for each, in order.

        Raises:
            NoAnswer: no answer in time; asking again with the same idempotency keys is safe.
        """
        answer = self._ask(SendBatch(tuple(keyed(message) for message in messages)))
        if isinstance(answer, BatchAnswer):
            return list(answer.answers)
        raise refusal_of(answer)

    def cancel(self, message_id: int) -> None:
        """Cancel a message that is still queued.

        Raises:
            Refused: it is not queued (any more).
        """
        self._done(CancelMessage(message_id))

    def resolve(self, message_id: int, *, sent: bool) -> None:
        """Settle an in-doubt message: it was sent, or it was not and shall be sent again.

        Raises:
            Refused: it is not in doubt.
        """
        self._done(ResolveMessage(message_id, sent))

    def message(self, message_id: int) -> Row | None:
        """Return a message with its story and attempts, or None."""
        with self._database.transaction() as connection:
            return outbox.message(connection, message_id)

    def messages(
        self, *, device: str | None = None, state: str | None = None, key: str | None = None, limit: int = 50
    ) -> list[Row]:
        """Return messages, newest first (in-doubt ones oldest first); ``key`` is an idempotency key."""
        with self._database.transaction() as connection:
            return outbox.list_messages(connection, device=device, state=state, key=key, limit=limit)

    def states(self, message_ids: Sequence[int]) -> dict[int, Row]:
        """Return the states of these messages."""
        with self._database.transaction() as connection:
            return outbox.states(connection, message_ids)

    def message_counts(self) -> dict[str, int]:
        """Return how many messages stand in each state."""
        with self._database.transaction() as connection:
            return outbox.counts(connection)

    # --- devices -----------------------------------------------------------------------------------------

    def add_device(
        self,
        name: str,
        *,
        platform: str | None = None,
        base_url: str | None = None,
        credentials: Mapping[str, str] | None = None,
        proxy: str | None = None,
        companion: Companion | None = None,
        limits: Limits | None = None,
    ) -> int:
        """Add a device and return its id; ``platform`` None means WhatsApp. Secrets travel and rest sealed.

        A ``companion`` is one that a phone linked with another tool, its session in the store already (see adopt).

        Raises:
            Refused: the name is taken, the account cannot be used, or another device has that companion.
        """
        seal = CredentialSeal(self._home.credentials_key)
        return int(
            self._done(
                AddDevice(
                    name=name,
                    platform=platform,
                    base_url=base_url,
                    credentials=seal.seal(credentials) if credentials else None,
                    proxy=seal.seal({"proxy": proxy}) if proxy else None,
                    companion=companion,
                    limits=limits,
                )
            )
        )

    def set_fallbacks(self, name: str, others: Sequence[str]) -> None:
        """Let these devices stand in for one, in this order; none: nobody does.

        Raises:
            NotFound, Refused: a name is unknown, or stands in for itself.
        """
        self._done(SetFallbacks(name, tuple(others)))

    def fallbacks(self, device: Device) -> list[str]:
        """Return the names of the devices that stand in for one."""
        with self._database.transaction() as connection:
            return fallbacks.of_device(connection, device.id)

    def tell_device(self, name: str, command: str, *, number: str | None = None) -> str:
        """Tell a device to pair, refresh, pause, resume or remove; return the request's id.

        What comes of a refresh stands in ``restart_of(request)``; states stand in the device's row.

        Raises:
            Refused: the command makes no sense for the device as it is.
        """
        command_message = DeviceCommand(name, command, number)
        self._done(command_message)
        return command_message.request

    def coming_up(self, seconds: float) -> ComingUp:
        """Return how far the devices have come up since the fleet started, so many seconds ago."""
        with self._database.transaction() as connection:
            return devices.coming_up(connection, holder_name(self._home), seconds)

    def recycle_shard(self, name: str) -> str:
        """Have a fresh process take over a shard's devices; return the request's id, for ``restart_of``."""
        message = RecycleShard(name)
        self._done(message)
        return message.request

    def device(self, name: str) -> Device:
        """Return one device.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.transaction() as connection:
            return devices.by_name(connection, name)

    def devices(self) -> list[Device]:
        """Return every device."""
        with self._database.transaction() as connection:
            return devices.all_devices(connection)

    def backlog(self) -> dict[int, Row]:
        """Return how many messages are unfinished on each device that has any."""
        with self._database.transaction() as connection:
            return devices.backlog(connection)

    def restarts(self, *, device: str | None = None, after: int = 0, limit: int = 50) -> list[Row]:
        """Return the newest restarts, oldest of them first."""
        with self._database.transaction() as connection:
            device_id = None if device is None else devices.by_name(connection, device).id
            return restarts.latest(connection, device_id=device_id, after=after, limit=limit)

    def restart_of(self, request: str) -> Row | None:
        """Return what came of a refresh that was asked for."""
        with self._database.transaction() as connection:
            return restarts.by_request(connection, request)

    # --- care for the numbers ----------------------------------------------------------------------------

    def opt_out(self, numbers: Sequence[str], *, source: str = "operator") -> OptedOut:
        """Write to these numbers (at most 500) no more, by any route, and cancel what is queued for them.

        Raises:
            Refused: one of them is no telephone number; nothing was changed.
        """
        return OptedOut(**json.loads(self._done(OptOut(tuple(numbers), source))))

    def opt_in(self, numbers: Sequence[str]) -> int:
        """Let these numbers (at most 500) be written to again; return how many had opted out.

        Raises:
            Refused: one of them is no telephone number; nothing was changed.
        """
        return int(self._done(OptIn(tuple(numbers))))

    def opt_outs(self, limit: int = 1_000_000) -> list[Row]:
        """Return the numbers that have opted out, newest first."""
        with self._database.transaction() as connection:
            return care.list_opt_outs(connection, limit)

    def set_limits(self, name: str, limits: Limits, *, reset: bool = False) -> None:
        """Set limits of a device's own; None leaves one as it is, or, with ``reset``, to the installation's setting.

        Raises:
            Refused: a value is no limit.
        """
        self._done(SetLimits(name, limits, reset))

    def care_overview(self) -> Row:
        """Return how many numbers have opted out, and how many devices have limits of their own."""
        with self._database.transaction() as connection:
            return care.overview(connection)

    def breakers(self) -> list[Row]:
        """Return the circuit breakers of platforms and accounts that are not closed."""
        with self._database.transaction() as connection:
            return breakers.all_breakers(connection)

    # --- the HTTP API's keys -----------------------------------------------------------------------------

    def add_key(
        self, key: str, *, scope: str, devices: Sequence[str] = (), name: str = "", per_minute: int | None = None
    ) -> None:
        """Let ``key`` (of ``config.api_keys.new_key``) use the HTTP API; only its hash leaves this process.

        Raises:
            Refused: the scope, a device, the name or the limit cannot be used.
        """
        self._done(AddKey(public_id(key) or "", digest_of(key), scope, tuple(devices), name, per_minute))

    def keys(self) -> list[Row]:
        """Return every key of the HTTP API, without its hash, the oldest first."""
        with self._database.transaction() as connection:
            return keys.all_keys(connection)

    def revoke_key(self, key_id: str) -> None:
        """End the key with that public id.

        Raises:
            Refused: there is none that can be used.
        """
        self._done(RevokeKey(key_id))

    # --- asking ------------------------------------------------------------------------------------------

    def _done(self, message: Request) -> str:
        answer = self._ask(message)
        if isinstance(answer, Done):
            return answer.detail
        raise refusal_of(answer)

    def _ask(self, message: Any) -> Any:
        """Ask the router until it answers; every request bears being asked twice."""
        deadline = time.monotonic() + self._timeout
        answer: Any = None
        while (left := deadline - time.monotonic()) > 0:
            answer = self._router.ask(message, min(ASK_SECONDS, left)) or answer
            if answer is not None and not is_transient(answer):
                return answer
            time.sleep(PAUSE_SECONDS)
        if answer is not None:
            return answer
        raise no_answer(self._timeout)
