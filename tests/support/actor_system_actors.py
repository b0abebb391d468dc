"""The actors, and the process that starts their system, for the tests of the actor system."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited

from actors.base import SupervisedActor
from config.home import Home
from supervisors.actor_system import admin_pid, admin_port, start_actor_system
from supervisors.processes import FATAL_SIGNALS, reap

#: Where Thespian finds these actors.
MODULE = "tests.support.actor_system_actors"


@dataclass(frozen=True)
class Describe:
    """Answered with a Description."""


@dataclass(frozen=True)
class Description:
    pid: int
    children: dict[int, str] = field(default_factory=dict)
    exits: tuple[int, ...] = ()
    handled: tuple[str, ...] = ()
    fatal_signals_are_default: bool = True


@dataclass(frozen=True)
class Raise:
    """Makes the handler raise."""


@dataclass(frozen=True)
class BreakDown:
    """Makes the process die: ``segv`` (a real one), ``abort``, ``exit``."""

    how: str


@dataclass(frozen=True)
class Wake:
    seconds: float


@dataclass(frozen=True)
class CreateChildren:
    count: int
    actor: str = f"{MODULE}.Child"


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class SendTo:
    """Makes the actor send something to each address."""

    addresses: tuple[ActorAddress, ...]


class Child(SupervisedActor):
    """Describes itself, and breaks down when told."""

    def __init__(self) -> None:
        super().__init__()
        self.handled: list[str] = []

    def on_describe(self, message: Describe, sender: ActorAddress) -> None:
        default = all(signal.getsignal(number) is signal.SIG_DFL for number in FATAL_SIGNALS)
        self.send(sender, Description(os.getpid(), handled=tuple(self.handled), fatal_signals_are_default=default))

    def on_raise(self, message: Raise, sender: ActorAddress) -> None:
        self.handled.append("raise")
        raise RuntimeError("as asked")

    def on_wake(self, message: Wake, sender: ActorAddress) -> None:
        self.wake_after(message.seconds, "payload")

    def on_wakeup(self, payload: str) -> None:
        self.handled.append(payload)

    def on_sleep(self, message: Sleep, sender: ActorAddress) -> None:
        time.sleep(message.seconds)

    def on_send_to(self, message: SendTo, sender: ActorAddress) -> None:
        for address in message.addresses:
            self.send(address, Describe())

    def on_break_down(self, message: BreakDown, sender: ActorAddress) -> None:
        match message.how:
            case "segv":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case _:
                os._exit(7)

    def on_actor_exit_request(self, message: ActorExitRequest, sender: ActorAddress) -> None:
        if mark := os.environ.get("EXIT_MARKS"):
            (Path(mark) / str(os.getpid())).touch()


class Stillborn(SupervisedActor):
    """Dies before it is connected to its parent."""

    def __init__(self) -> None:
        super().__init__()
        os._exit(9)


class Unbuildable(SupervisedActor):
    """Fails in its constructor."""

    def __init__(self) -> None:
        super().__init__()
        raise RuntimeError("not to be built")


class Watcher(SupervisedActor):
    """Reads a pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.writing = os.pipe()
        self.handled: list[str] = []

    def on_wake(self, message: Wake, sender: ActorAddress) -> None:
        self.watch(self.reading)
        os.write(self.writing, b"x")

    def on_watch_message(self, message: Any, sender: ActorAddress) -> None:
        self.handled.append(os.read(self.reading, 10).decode())
        if len(self.handled) < 3:
            os.write(self.writing, b"x")

    def on_describe(self, message: Describe, sender: ActorAddress) -> None:
        self.send(sender, Description(os.getpid(), handled=tuple(self.handled)))


class Parent(Child):
    """Creates children and counts their exits."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[ActorAddress] = []
        self.pids: dict[int, str] = {}
        self.exits: list[int] = []

    def on_create_children(self, message: CreateChildren, sender: ActorAddress) -> None:
        for _ in range(message.count):
            child = self.createActor(message.actor)
            self.children.append(child)
            self.send(child, Describe())

    def on_description(self, message: Description, sender: ActorAddress) -> None:
        self.pids[message.pid] = str(sender)

    def on_child_actor_exited(self, message: ChildActorExited, sender: ActorAddress) -> None:
        which = [number for number, child in enumerate(self.children) if child == message.childAddress]
        self.exits.extend(which or [-1])

    def on_describe(self, message: Describe, sender: ActorAddress) -> None:
        self.send(
            sender,
            Description(os.getpid(), dict(self.pids), tuple(self.exits), tuple(self.handled)),
        )


class Plain(Actor):
    """An actor that does not use our base class."""

    def receiveMessage(self, msg: Any, sender: ActorAddress) -> None:  # noqa: N802
        if isinstance(msg, Describe):
            default = all(signal.getsignal(number) is signal.SIG_DFL for number in FATAL_SIGNALS)
            self.send(sender, Description(os.getpid(), fatal_signals_are_default=default))


def main() -> None:
    """Start the actor system of the home named on the command line and live until the input ends."""
    home = Home(Path(sys.argv[1]))
    home.create()
    system = start_actor_system(home, "127.0.0.1", int(sys.argv[2]))
    print(json.dumps({"port": admin_port(system), "admin": admin_pid(system)}), flush=True)  # noqa: T201
    sys.stdin.read()
    system.shutdown()
    reap()


if __name__ == "__main__":
    main()
