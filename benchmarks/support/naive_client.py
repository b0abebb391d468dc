"""What many people run instead: one number, one script, plain neonize, and a loop that tries again.

Run as a process of its own; its orders come as one line of JSON on standard input. It reads messages (one JSON list
``[to, text]`` a line) from a file that grows, sends each, and on an exception tries three times more. How far it came
stands in another file, so that it can be started again. Of ours, it uses the switch to the loopback WhatsApp alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from actors.whatsapp.loopback import replace_noise_root

_TRIES = 4
_PAUSE_SECONDS = 1.0


def main() -> None:
    """Connect, and send what comes, until killed."""
    orders = json.loads(sys.stdin.readline())
    import pylibmagic  # noqa: F401, PLC0415
    from neonize.client import NewClient  # noqa: PLC0415
    from neonize.events import ConnectedEv  # noqa: PLC0415

    replace_noise_root(bytes.fromhex(orders["noise_root"]), proxy=orders["proxy"])
    client = NewClient(orders["store"])
    sender = threading.Thread(target=_send_all, args=(client, orders), daemon=True)

    def on_connected(_client: Any, _event: Any) -> None:
        if not sender.is_alive():
            sender.start()

    def on_qr(_client: Any, text: bytes) -> None:
        os.write(_OUT, text + b"\n")

    client.event(ConnectedEv)(on_connected)
    client.event.qr(on_qr)
    client.connect()


def _send_all(client: Any, orders: dict[str, str]) -> None:
    from neonize.utils.jid import build_jid  # noqa: PLC0415 - loads the library

    progress = Path(orders["progress"])
    done = int(progress.read_text() or 0) if progress.exists() else 0
    with Path(orders["queue"]).open(encoding="utf-8") as queue:
        for _ in range(done):
            queue.readline()
        while True:
            line = queue.readline()
            if not line.endswith("\n"):
                time.sleep(0.05)
                queue.seek(queue.tell() - len(line.encode()))
                continue
            to, text = json.loads(line)
            for _attempt in range(_TRIES):
                try:
                    client.send_message(build_jid(to), text)
                    break
                except Exception:  # noqa: BLE001 - so do the scripts that this one stands for
                    time.sleep(_PAUSE_SECONDS)
            done += 1
            progress.write_text(str(done))


if __name__ == "__main__":
    # The library prints to standard output; what we tell goes to where that led.
    _OUT = os.dup(1)
    os.dup2(2, 1)
    main()
