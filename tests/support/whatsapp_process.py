"""The test's end of :mod:`tests.support.whatsapp_driver`, and the servers that it needs."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.daemon import exec_environment
from config.home import DAEMON_VARIABLE, Home

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parents[2]


def eventually(holds: Callable[[], bool], within: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.02)


class DriverError(Exception):
    """What an order raised: the error's class, code and sentence."""

    def __init__(self, kind: str, code: str, text: str) -> None:
        super().__init__(f"{kind} {code}: {text}")
        self.kind, self.code, self.text = kind, code, text


class Died(Exception):
    """The driver's process ended while an answer was awaited."""


class Hosting:
    """A driver process. Orders are methods of the driver, called by name; use it as a context manager."""

    def __init__(self, directory: Path, store_url: str, simulator: dict[str, Any], **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        environment = exec_environment(
            Home(directory),
            daemon_variable=DAEMON_VARIABLE,
            proxy=simulator["proxy"],
            ca_file=Path(simulator["ca_file"]),
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.whatsapp_driver"],
            cwd=directory,
            env={**environment, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.events: dict[str, list[dict[str, Any]]] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._orders = 0
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        told = {"store_url": store_url, "proxy": simulator["proxy"], "noise_root": simulator["noise_root"]}
        self._write({**told, **settings})
        self._answer(0, 30)

    def __enter__(self) -> Hosting:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """What the process printed."""
        return (self.directory / "output.txt").read_text()

    def start(self, op: str, **arguments: Any) -> int:
        """Give an order without waiting; pass the number to :meth:`finish`."""
        with self._news:
            self._orders += 1
            number = self._orders
        self._write({"id": number, "op": op, **arguments})
        return number

    def finish(self, number: int, within: float = 60) -> Any:
        answer = self._answer(number, within)
        if "error" in answer:
            raise DriverError(**answer["error"])
        return answer["ok"]

    def call(self, op: str, *, within: float = 60, **arguments: Any) -> Any:
        return self.finish(self.start(op, **arguments), within)

    def send(self, client: str, to: str, body: str, **more: Any) -> dict[str, Any]:
        """Send with a fresh secret; the answer holds it as ``secret``."""
        secret = secrets.token_bytes(32)
        media = base64.b64encode(more.pop("media", b"")).decode()
        sent = self.call("send", client=client, to=to, body=body, secret=secret.hex(), media=media, **more)
        return {**sent, "secret": secret}

    def wait_for(self, client: str, event: str, within: float = 20, **values: Any) -> dict[str, Any]:
        """Return the first event of that class and with those values."""

        def look() -> dict[str, Any] | None:
            for found in self.events.get(client, []):
                if found["event"] == event and all(found[name] == value for name, value in values.items()):
                    return found
            return None

        found: dict[str, Any] = self._wait(look, within, f"{event} {values} of {client}")
        return found

    def names(self, client: str) -> list[str]:
        """Return the classes of a client's events so far."""
        return [event["event"] for event in self.events.get(client, [])]

    def _answer(self, number: int, within: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._wait(lambda: self._answers.get(number), within, f"answer {number}")
        return answer

    def _wait(self, look: Callable[[], Any], within: float, what: str) -> Any:
        deadline = time.monotonic() + within
        with self._news:
            while (found := look()) is None:
                if self._ended:
                    raise Died(f"waiting for {what}: {self.output[-2000:]}")
                if not self._news.wait(deadline - time.monotonic()) and look() is None:
                    raise TimeoutError(f"{what} did not come; events: {self.events}")
        return found

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._news:
                if "client" in said:
                    self.events.setdefault(said["client"], []).append(said)
                else:
                    self._answers[said.get("id", 0)] = said
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Simulating:
    """A simulator process on ``directory``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._log = (directory / "simulator.out").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator", str(directory)],
            cwd=PROJECT,
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 30
        while not (directory / "simulator.json").exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise TimeoutError((directory / "simulator.out").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the simulator; again does nothing."""
        if self._log.closed:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
