"""GatewayActor: the process in which the gateway's servers run, supervised like every other child.

Its main thread exchanges messages with the router and reports life; HTTP is served in threads of their own.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from actors.child import SupervisedChild
from actors.endpoint_requests import endpoint_networks
from config.daemon import loopback_endpoint
from config.webhooks import webhook_base_url
from gateway import app as main_app
from gateway import provider_webhooks
from gateway.bridge import RouterBridge
from gateway.context import CONNECTIONS, Context
from gateway.listening import Listener
from gateway.metrics.counts import Counts
from gateway.outgoing.courier import Courier
from gateway.receiving import Receiver
from gateway.router_client import RouterClient
from gateway.tracing.requests import AnsweredRequests
from storage.credentials import CredentialSeal
from storage.database import PooledConnections, database_url
from storage.leases import holder_name

if TYPE_CHECKING:
    from fastapi import FastAPI

    from actors.messages import RouterAt, StopChild
    from gateway.tracing.exporter import Exporter

#: How long a thread that computes keeps one waiting that has something to do, in seconds. With Python's 5 ms, each of
#: the actor's many small steps with a socket could cost that much while the servers are busy.
_SWITCH_SECONDS = 0.0005
#: Database connections for platforms' webhooks, at most.
_WEBHOOK_CONNECTIONS = 4
#: How long deliveries to endpoints may go on when it leaves, in seconds; what is cut off then is told again.
_LEAVE_SECONDS = 3.0


class GatewayActor(SupervisedChild):
    """The actor of the gateway."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[Listener] = []
        self._bridge = RouterBridge()
        self._counts = Counts()
        self._courier: Courier | None = None
        self._answered = AnsweredRequests() if self.settings.traces_endpoint else None
        self._exporter: Exporter | None = None

    # --- life --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to listen, and to tell endpoints what happens."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self.watch(self._bridge.descriptor)
        settings, home = self.settings, self.home
        if settings.gateway_enabled:
            address, port = settings.gateway_address, settings.gateway_port
            self._listeners.append(Listener("gateway", home, address, port, self._main_app))
        if settings.webhook_port:
            address, port = settings.webhook_address, settings.webhook_port
            self._listeners.append(Listener("webhook listener", home, address, port, self._provider_webhooks))
        self._listen()
        self._courier = Courier(
            PooledConnections(database_url(home, settings), 1),
            CredentialSeal(home.credentials_key),
            holder_name(home),
            endpoint_networks(settings, loopback=loopback_endpoint(home) is not None),
            self._counts.attempted,
        )
        self._courier.start()
        if self._answered is not None:
            self._exporter = self._export_traces(self._answered)
        # What was loaded stays: whoever collects garbage need not look through it, again and again.
        gc.collect()
        gc.freeze()

    def is_well(self) -> bool:
        """Return whether every server lives, or waits for its port, and the courier and the exporter live."""
        threads = [each for each in (self._courier, self._exporter) if each is not None]
        return all(each.is_alive() for each in threads) and all(listener.is_well() for listener in self._listeners)

    def on_wakeup(self, payload: Any) -> None:
        """Report life, and try again to listen where that failed."""
        super().on_wakeup(payload)
        self._listen()

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Let requests under way end, then leave."""
        for listener in self._listeners:
            listener.leave()
        if self._courier is not None:
            self._courier.leave(_LEAVE_SECONDS)
        if self._exporter is not None:
            self._exporter.leave(_LEAVE_SECONDS)
        os._exit(0)

    def _export_traces(self, answered: AnsweredRequests) -> Exporter:
        from gateway.tracing.collector import Collector  # noqa: PLC0415 - loads OpenTelemetry, which may not be there
        from gateway.tracing.exporter import Exporter  # noqa: PLC0415

        owner = holder_name(self.home)
        collector = Collector(self.settings.traces_endpoint, instance=owner.rpartition("/")[2])
        exporter = Exporter(PooledConnections(database_url(self.home, self.settings), 1), owner, answered, collector)
        exporter.start()
        return exporter

    def _listen(self) -> None:
        for listener in self._listeners:
            listener.listen()

    # --- between the servers and the router --------------------------------------------------------------

    def on_router_at(self, message: RouterAt, _sender: Any) -> None:
        """Learn where the router is."""
        self._bridge.router_is(message.address, message.owner)
        self._send()

    def on_watch_message(self, _message: Any, _sender: Any) -> None:
        """Send what the servers want sent."""
        self._send()

    def on_answer(self, message: Any, _sender: Any) -> None:
        """Hand the router's answer to the server that waits for it."""
        self._bridge.answered(message)

    on_batch_answer = on_done = on_request_refused = on_pong = on_answer

    def _send(self) -> None:
        for address, message in self._bridge.outgoing():
            self.send(address, message)

    # --- what is served ----------------------------------------------------------------------------------

    def _main_app(self) -> FastAPI:
        return main_app.create_app(
            Context(
                home=self.home,
                settings=self.settings,
                database=PooledConnections(database_url(self.home, self.settings), CONNECTIONS),
                router=RouterClient(self._bridge),
                seal=CredentialSeal(self.home.credentials_key),
                loopback=loopback_endpoint(self.home) is not None,
                counts=self._counts,
                answered=self._answered,
            )
        )

    def _provider_webhooks(self) -> FastAPI:
        receiver = Receiver(
            self.home,
            PooledConnections(database_url(self.home, self.settings), _WEBHOOK_CONNECTIONS),
            CredentialSeal(self.home.credentials_key),
            base_url=webhook_base_url(self.settings),
            loopback_allowed=loopback_endpoint(self.home) is not None,
        )
        return provider_webhooks.create_app(receiver)
