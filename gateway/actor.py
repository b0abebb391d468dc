"""GatewayActor: the process in which the gateway's server runs, supervised like every other child.

Its main thread takes messages and reports life; a second one serves HTTP. A port that is taken is no reason to keep the
fleet from sending: it is logged, and tried again until it is free.
"""

from __future__ import annotations

import os
from typing import Any

from actors.child import SupervisedChild
from actors.messages import StopChild
from config.daemon import loopback_endpoint
from config.logging import logger
from config.webhooks import webhook_base_url
from gateway.app import create_app
from gateway.receiving import Receiver
from gateway.server import Server, bind
from storage.credentials import CredentialSeal
from storage.database import PooledConnections, database_url

#: Database connections of the gateway, at most.
_CONNECTIONS = 4


class GatewayActor(SupervisedChild):
    """The actor of the gateway."""

    def __init__(self) -> None:
        super().__init__()
        self._server: Server | None = None

    def begin(self) -> None:
        """Start to listen."""
        self._listen()

    def is_well(self) -> bool:
        """Return whether the server lives, or waits for its port."""
        return self._server is None or self._server.is_alive()

    def on_wakeup(self, payload: Any) -> None:
        """Report life, and try again to listen where that failed."""
        super().on_wakeup(payload)
        if self.start is not None and self._server is None:
            self._listen()

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Let requests under way end, then leave."""
        if self._server is not None:
            self._server.leave()
        os._exit(0)

    def _listen(self) -> None:
        address, port = self.settings.webhook_address, self.settings.webhook_port
        try:
            listening = bind(address, port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            logger().error(
                "The webhook listener cannot listen; it tries again", address=address, port=port, reason=reason
            )
            return
        receiver = Receiver(
            self.home,
            PooledConnections(database_url(self.home, self.settings), _CONNECTIONS),
            CredentialSeal(self.home.credentials_key),
            base_url=webhook_base_url(self.settings),
            loopback_allowed=loopback_endpoint(self.home) is not None,
        )
        self._server = Server(create_app(receiver), listening)
        self._server.start()
        logger().info("The webhook listener is up", address=address, port=port)
