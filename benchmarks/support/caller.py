"""One caller of a running daemon, as a process of its own: it asks the router as fast as it answers, and counts.

python -m benchmarks.support.caller HOME DEVICE --seconds 5 --batch 500
"""

from __future__ import annotations

import argparse
import json
import time

from actors.fleet import Fleet
from actors.messages import MessageAccepted, SendMessage


def main() -> None:
    """Call and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home")
    parser.add_argument("device")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=0, help="messages a call; 0: one by one")
    chosen = parser.parse_args()
    taken: list[float] = []
    accepted = 0
    with Fleet(chosen.home) as fleet:
        fleet.send(chosen.device, "60198887777", "the first call finds the router")
        began = time.monotonic()
        while time.monotonic() - began < chosen.seconds:
            asked = time.monotonic()
            if chosen.batch:
                message = SendMessage(chosen.device, "60198887777", "Your order is ready.")
                answers = fleet.send_batch([message] * chosen.batch)
                accepted += sum(isinstance(answer, MessageAccepted) for answer in answers)
            else:
                fleet.send(chosen.device, "60198887777", "Your order is ready.")
                accepted += 1
            taken.append(time.monotonic() - asked)
        seconds = time.monotonic() - began
    print(json.dumps({"accepted": accepted, "seconds": seconds, "taken": taken}))


if __name__ == "__main__":
    main()
