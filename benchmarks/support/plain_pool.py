"""What the platforms are compared with: threads with a ``requests.Session`` each that post messages, and nothing else.

Nothing is stored, ordered, retried or logged; an answer's status is looked at, and that is all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time

import requests


def post_all(base_url: str, messages: int, concurrency: int) -> float:
    """Post ``messages`` from ``concurrency`` threads; return how many seconds it took."""
    numbers = itertools.count()
    failures: list[str] = []

    def work() -> None:
        with requests.Session() as session:
            session.headers["X-Api-Key"] = "invented-key"
            while (number := next(numbers)) < messages:
                body = {"session": "default", "chatId": "60123456789@c.us", "text": f"message {number:06d}"}
                answer = session.post(f"{base_url}/api/sendText", json=body, timeout=30)
                if answer.status_code != 201 or not answer.json().get("id"):
                    failures.append(str(answer.status_code))

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{len(failures)} requests failed: {failures[0]}")
    return time.monotonic() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_url")
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    chosen = parser.parse_args()
    seconds = post_all(chosen.base_url, chosen.messages, chosen.concurrency)
    print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time()}))
