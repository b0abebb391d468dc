"""Webhook endpoints as programs outside the daemon manage them: changed by the router, read from PostgreSQL."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.messages import AddEndpoint, ChangeEndpoint, RemoveEndpoint, ReplayDeliveries, TryEndpoint
from storage import endpoint_deliveries, endpoints
from storage.credentials import CredentialSeal
from storage.database import Database, Row
from storage.endpoints import Endpoint

#: Random bytes in a secret (Standard Webhooks asks for 24 to 64).
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret as receivers know it: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")


def seal_secret(seal: CredentialSeal, secret: str) -> bytes:
    """Return a secret as it travels and rests."""
    return seal.seal({"secret": secret})


def open_secret(seal: CredentialSeal, sealed: bytes) -> str:
    """Return a sealed secret.

    Raises:
        ConfigurationInvalid: it was sealed with another key.
    """
    return seal.open(sealed)["secret"]


@dataclass(frozen=True)
class Endpoints:
    """Where others are told what happens.

    Attributes:
        done: asks the router and returns its answer, or raises what it refused with.
        database: where endpoints and deliveries are read.
        seal: seals secrets with the home's key.
    """

    done: Callable[[Any], str]
    database: Database
    seal: CredentialSeal

    def add(
        self, url: str, events: Sequence[str] = ("*",), *, device: str | None = None, description: str = ""
    ) -> tuple[int, str]:
        """Add an endpoint; return its id and its secret, which its receiver verifies signatures with.

        Raises:
            Refused: the URL or an event cannot be used.
            NotFound: there is no such device.
        """
        secret = new_secret()
        message = AddEndpoint(url, tuple(events), seal_secret(self.seal, secret), device, description)
        return int(self.done(message)), secret

    def change(self, endpoint_id: int, **changes: Any) -> None:
        """Change ``url``, ``events``, ``description`` or ``enabled`` of an endpoint.

        Raises:
            Refused, NotFound: it cannot be changed so, or there is none.
        """
        self.done(ChangeEndpoint(endpoint_id, **changes))

    def remove(self, endpoint_id: int) -> None:
        """Remove an endpoint; what it was still to be told is told to nobody."""
        self.done(RemoveEndpoint(endpoint_id))

    def test(self, endpoint_id: int) -> int:
        """Tell an endpoint something that happened to nobody; return the delivery's id."""
        return int(self.done(TryEndpoint(endpoint_id)))

    def replay(self, endpoint_id: int, delivery_id: int | None = None) -> int:
        """Tell an endpoint its dead letters once more, or one delivery that is over; return how many."""
        return int(self.done(ReplayDeliveries(endpoint_id, delivery_id)))

    def all(self) -> list[Endpoint]:
        """Return every endpoint."""
        with self.database.transaction() as connection:
            return endpoints.all_endpoints(connection)

    def get(self, endpoint_id: int) -> Endpoint:
        """Return one endpoint.

        Raises:
            NotFound: there is none with that id.
        """
        with self.database.transaction() as connection:
            return endpoints.by_id(connection, endpoint_id)

    def secret(self, endpoint: Endpoint) -> str:
        """Return an endpoint's secret."""
        return open_secret(self.seal, endpoint.secret)

    def counts(self) -> dict[int, Row]:
        """Return how much each endpoint is still to be told, since when, and how much it never was."""
        with self.database.transaction() as connection:
            return endpoint_deliveries.counts(connection)

    def deliveries(
        self, endpoint_id: int, *, dead: bool = False, before: int | None = None, limit: int = 50
    ) -> list[Row]:
        """Return the newest deliveries, or dead letters, newest first."""
        with self.database.transaction() as connection:
            endpoints.by_id(connection, endpoint_id)
            return endpoint_deliveries.latest(connection, endpoint_id, dead=dead, before=before, limit=limit)

    def delivery(self, delivery_id: int) -> Row:
        """Return one delivery, with what is told.

        Raises:
            NotFound: there is none with that id (any more).
        """
        with self.database.transaction() as connection:
            return endpoint_deliveries.by_id(connection, delivery_id)
