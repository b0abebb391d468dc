"""What many people write instead: a callback that posts each event, and tries three times more when that fails.

    python -m benchmarks.support.plain_webhooks URL

Events come on standard input, one ``[id, body]`` of JSON a line, as a library would call back; each gets a thread, so
that none waits for another. What it has in hand when it is killed is gone.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import requests

_TRIES = 4
_FIRST_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 15.0


def on_event(url: str, webhook_id: str, body: Any) -> None:
    """Post one event."""
    for attempt in range(_TRIES):
        try:
            if requests.post(url, json=body, headers={"webhook-id": webhook_id}, timeout=_TIMEOUT_SECONDS).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)


def main() -> None:
    """Post until the input ends, and let what is under way end."""
    for line in sys.stdin:
        threading.Thread(target=on_event, args=(sys.argv[1], *json.loads(line))).start()


if __name__ == "__main__":
    main()
