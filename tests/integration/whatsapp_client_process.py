"""A process with one real WhatsApp client (neonize), driven by JSON lines; and the tests' handle on it.

The Go library reads its environment as it was when the process began, and a crash of it takes the process along: so
each client of these tests lives in a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

#: The Noise root built into the library (whatsmeow, handshake.go, WACertPubKey).
REAL_ROOT = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
#: Its keep-alive settings in seconds: deadline, shortest and longest interval, longest failure (keepalive.go).
REAL_KEEP_ALIVE = (10.0, 20.0, 30.0, 180.0)


class ClientProcess:
    """One real client in a process of its own.

    Args:
        simulator: what the simulator tells about itself.
        store: the SQLite file or the PostgreSQL URL of its session; give the same again to go on with a session.
        keep_alive: shorter keep-alive settings in seconds, for tests of dead connections.
    """

    def __init__(
        self,
        simulator: dict[str, Any],
        store: Path | str,
        keep_alive: tuple[float, float, float, float] | None = None,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name.upper() != "NO_PROXY"}
        environment |= {
            "SSL_CERT_FILE": simulator["ca_file"],
            "SSL_CERT_DIR": "/nonexistent",
            "HTTPS_PROXY": simulator["proxy"],
        }
        settings = {
            "noise_root": simulator["noise_root"],
            "store": str(store),
            "keep_alive": keep_alive,
        }
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait("ready", seconds=60)

    def do(self, command: str, **arguments: Any) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()

    def wait(self, event: str, seconds: float = 20, since: int = 0, **fields: Any) -> dict[str, Any]:
        """Return the first event with this name and these fields, from position ``since`` on."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for found in self.events[since:]:
                    if found["event"] == event and all(found.get(key) == value for key, value in fields.items()):
                        return found
                left = deadline - time.monotonic()
                if left <= 0 or (self._process.poll() is not None and not self._reader.is_alive()):
                    seen = [one["event"] for one in self.events]
                    raise AssertionError(f"no event {event} {fields} within {seconds} s; seen: {seen}")
                self._changed.wait(min(left, 0.5))

    def saw(self, event: str, since: int = 0) -> int:
        """Return how often an event came."""
        with self._changed:
            return sum(found["event"] == event for found in self.events[since:])

    @property
    def mark(self) -> int:
        """The position after the last event so far."""
        with self._changed:
            return len(self.events)

    def pair(self) -> str:
        """Begin pairing; return the first QR text."""
        self.do("pair")
        return str(self.wait("qr")["text"])

    def open(self, jid: str) -> None:
        """Log in with the stored session of ``jid`` and wait until it is connected."""
        since = self.mark
        self.do("open", jid=jid)
        self.wait("connected", since=since)

    def send(self, to: str, text: str, seconds: float = 20) -> str:
        """Send a text; return the message id."""
        since = self.mark
        self.do("send", to=to, text=text)
        answer = self.wait("answer", seconds, since, text=text)
        assert answer["error"] is None, answer
        return str(answer["id"])

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and everything it held."""
        with contextlib.suppress(OSError, ValueError):
            self.do("exit")
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


# What runs in the client's process


def _overwrite(old: bytes, new: bytes) -> None:
    """Replace a unique run of bytes among the library's writable data."""
    hits = []
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            fields = line.split()
            if len(fields) > 5 and "neonize-linux" in fields[5] and "w" in fields[1]:
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                data = ctypes.string_at(begin, end - begin)
                position = data.find(old)
                while position >= 0:
                    hits.append(begin + position)
                    position = data.find(old, position + 1)
    if len(hits) != 1:
        raise RuntimeError(f"{len(hits)} places found instead of one")
    ctypes.memmove(hits[0], new, len(new))


def _nanoseconds(seconds: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(seconds)}q", *(int(value * 1e9) for value in seconds))


def _serve(settings: dict[str, Any]) -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import pylibmagic  # noqa: F401, PLC0415  (brings libmagic, which neonize needs)
    from neonize import events  # noqa: PLC0415
    from neonize.client import NewClient  # noqa: PLC0415
    from neonize.proto.Neonize_pb2 import JID  # noqa: PLC0415
    from neonize.utils import build_jid  # noqa: PLC0415

    _overwrite(REAL_ROOT, bytes.fromhex(settings["noise_root"]))
    if settings["keep_alive"]:
        _overwrite(_nanoseconds(REAL_KEEP_ALIVE), _nanoseconds(tuple(settings["keep_alive"])))
    client: Any = None

    def tell(event: str, **fields: Any) -> None:
        output.write(json.dumps({"event": event, **fields}) + "\n")

    def watch(new: Any) -> Any:
        @new.event(events.PairStatusEv)
        def _(_: Any, event: Any) -> None:
            tell("paired", jid=f"{event.ID.User}:{event.ID.Device}@{event.ID.Server}")

        @new.event(events.ConnectedEv)
        def _(_: Any, event: Any) -> None:
            tell("connected")

        @new.event(events.DisconnectedEv)
        def _(_: Any, event: Any) -> None:
            tell("disconnected")

        @new.event(events.LoggedOutEv)
        def _(_: Any, event: Any) -> None:
            tell("logged out", code=int(event.Reason))

        @new.event(events.StreamReplacedEv)
        def _(_: Any, event: Any) -> None:
            tell("replaced")

        @new.event(events.TemporaryBanEv)
        def _(_: Any, event: Any) -> None:
            tell("banned", text=str(event))

        @new.event(events.ClientOutdatedEv)
        def _(_: Any, event: Any) -> None:
            tell("outdated")

        @new.event(events.ConnectFailureEv)
        def _(_: Any, event: Any) -> None:
            tell("connect failure", text=str(event))

        @new.event(events.StreamErrorEv)
        def _(_: Any, event: Any) -> None:
            tell("stream error", code=event.Code)

        @new.event(events.KeepAliveTimeoutEv)
        def _(_: Any, event: Any) -> None:
            tell("keep-alive timeout")

        @new.event(events.KeepAliveRestoredEv)
        def _(_: Any, event: Any) -> None:
            tell("keep-alive restored")

        @new.event(events.HistorySyncEv)
        def _(_: Any, event: Any) -> None:
            tell("history")

        @new.event(events.UndecryptableMessageEv)
        def _(_: Any, event: Any) -> None:
            tell("undecryptable")

        @new.event(events.ReceiptEv)
        def _(_: Any, event: Any) -> None:
            source = event.MessageSource
            tell("receipt", ids=list(event.MessageIDs), kind=str(event.Type), own=source.IsFromMe)

        @new.event(events.MessageEv)
        def _(_: Any, event: Any) -> None:
            source = event.Info.MessageSource
            tell(
                "message",
                id=event.Info.ID,
                sender=source.Sender.User,
                sender_number=source.SenderAlt.User,
                own=source.IsFromMe,
                text=event.Message.conversation,
                sent_text=event.Message.deviceSentMessage.message.conversation,
            )

        @new.qr
        def _(_: Any, data: bytes) -> None:
            tell("qr", text=data.decode())

        return new

    def connect(new: Any) -> None:
        try:
            new.connect()
            tell("ended", error=None)
        except Exception as error:
            tell("ended", error=repr(error))

    def answer(action: Any, text: str = "") -> None:
        try:
            tell("answer", id=getattr(action(), "ID", None), error=None, text=text)
        except Exception as error:
            tell("answer", id=None, error=f"{type(error).__name__}: {error}", text=text)

    tell("ready")
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "pair":
                client = watch(NewClient(settings["store"], uuid=f"pair{time.time_ns()}", new_device=True))
                threading.Thread(target=connect, args=(client,), daemon=True).start()
            case "open":
                user, device = command["jid"].partition("@")[0].split(":")
                jid = JID(
                    User=user, Device=int(device), Server="s.whatsapp.net", RawAgent=0, Integrator=0, IsEmpty=False
                )
                client = watch(NewClient(settings["store"], jid=jid))
                threading.Thread(target=connect, args=(client,), daemon=True).start()
            case "code":
                try:
                    tell("code", text=client.PairPhone(command["number"], show_push_notification=True))
                except Exception as error:
                    tell("code", text=None, error=repr(error))
            case "send":
                to, text = build_jid(command["to"]), command["text"]
                threading.Thread(
                    target=answer, args=(lambda c=client, t=to, m=text: c.send_message(t, m), text), daemon=True
                ).start()
            case "media":
                to, data, caption = build_jid(command["to"]), bytes.fromhex(command["data"]), command["caption"]
                name = command.get("file_name", "")
                if command["kind"] == "image":
                    answer(lambda c=client, t=to, d=data, m=caption: c.send_image(t, d, caption=m))
                else:
                    answer(
                        lambda c=client, t=to, d=data, m=caption, n=name: c.send_document(
                            t, d, caption=m, filename=n, mimetype="text/plain"
                        )
                    )
            case "is on whatsapp":
                found = client.is_on_whatsapp(*command["numbers"])
                tell("is on whatsapp", numbers={one.Query: one.IsIn for one in found})
            case "logout":
                answer(lambda c=client: c.logout())
            case "stop":
                answer(lambda c=client: c.stop())
            case "exit":
                break
    os._exit(0)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
