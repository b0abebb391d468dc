"""A courier in a process of its own, to be killed: ``python -m tests.support.courier_process URL HOME``."""

from __future__ import annotations

import sys
import time
from ipaddress import ip_network
from pathlib import Path

from config.home import Home
from gateway.outgoing import posting, verdicts
from gateway.outgoing.courier import Courier
from storage.credentials import CredentialSeal
from storage.database import PooledConnections


def main(url: str, home: str) -> None:
    """Deliver until killed, without much patience."""
    verdicts._FIRST_WAIT = 0.05
    posting.ATTEMPT_SECONDS = 2.0
    courier = Courier(
        PooledConnections(url, 1),
        CredentialSeal(Home(Path(home)).credentials_key),
        "host/killed",
        (ip_network("127.0.0.0/8"),),
    )
    courier.start()
    while courier.is_alive():
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
