"""The base of every actor: one method per message, no failure that spreads, log lines of its own.

An actor is a class with methods ``on_<name of the message's class>``::

    class Greeter(SupervisedActor):
        def on_greet(self, message: Greet, sender: ActorAddress) -> None:
            self.send(sender, Greeting(f"hello {message.name}"))
            self.wake_after(60, "tidy up")

        def on_wakeup(self, payload: str) -> None: ...

        def on_child_actor_exited(self, message: ChildActorExited, sender: ActorAddress) -> None: ...

Thespian runs ``__init__`` before the actor has an address: it must neither send nor create nor ask to be
woken. An actor's life begins with its first message. Its process has the fatal signals at their defaults by
then (the actor system sees to that), so native libraries may be loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from thespian.actors import Actor, ActorAddress, PoisonMessage, ThespianWatch, WakeupMessage

from config.errors import SalamanderError
from config.home import DAEMON_VARIABLE, Home
from config.logging import configure_logging, logger
from config.settings import load_settings

#: The lowest level of the libraries' own log records that is kept.
_LIBRARY_LEVEL = logging.WARNING
#: Where a class name is cut into words: before a capital that follows a small letter, or begins a last word.
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def handler_name(message_class: type) -> str:
    """Return the name of the method that handles messages of ``message_class``: ``on_send_message``."""
    return "on_" + _WORDS.sub("_", message_class.__name__).lower()


class SupervisedActor(Actor):
    """An actor that survives whatever its handlers do.

    A handler that raises is logged, and the actor goes on with the next message; Thespian would run it a
    second time and send the message back as poison. On SIGTERM (and when its parent exits) an actor gets an
    ``ActorExitRequest``: it may tidy up in ``on_actor_exit_request``, then its process ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watched: list[int] = []
        self.log_as(type(self).__name__)

    def log_as(self, name: str) -> None:
        """Write this process's log lines under ``name`` (a shard says which one it is)."""
        _configure_process_logging(name)

    def wake_after(self, seconds: float, payload: Any = None) -> None:
        """Call ``on_wakeup(payload)`` once, ``seconds`` from now."""
        self.wakeupAfter(timedelta(seconds=seconds), payload)

    def watch(self, *descriptors: int) -> None:
        """Call ``on_watch_message`` whenever one of ``descriptors`` can be read. Replaces earlier ones.

        The way for worker threads to hand results to their actor: a queue, and a byte in a pipe.
        """
        self._watched = list(descriptors)

    def receiveMessage(self, msg: Any, sender: ActorAddress) -> ThespianWatch | None:  # noqa: N802
        """Hand ``msg`` to its handler. Thespian calls this; no exception leaves it."""
        try:
            self._dispatch(msg, sender)
        except Exception as error:  # noqa: BLE001 - the actor must live on, whatever happened
            # A line that cannot be written (a message whose repr raises) is no reason either.
            with contextlib.suppress(Exception):
                logger().error(
                    "a handler failed",
                    message_class=type(msg).__name__,
                    error=type(error).__name__,
                    exc_info=error,
                )
        # Thespian forgets what it watches unless each message's handling says it again.
        return ThespianWatch(self._watched) if self._watched else None

    def on_poison_message(self, message: PoisonMessage, sender: ActorAddress) -> None:
        """Note a message of this actor's that could not be delivered."""
        logger().warning(
            "a message was returned",
            message_class=type(message.poisonMessage).__name__,
            recipient=str(sender),
            details=str(message.details)[-500:],
        )

    def _dispatch(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, WakeupMessage):
            handler = getattr(self, "on_wakeup", None)
            arguments: tuple[Any, ...] = (message.payload,)
        else:
            handler = getattr(self, handler_name(type(message)), None)
            arguments = (message, sender)
        if handler is None:
            logger().debug("a message has no handler", message_class=type(message).__name__, sender=str(sender))
            return
        handler(*arguments)


class _LibraryLog(logging.Handler):
    """Takes what libraries log with the standard library's logging into our log file."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            write = getattr(logger(), "error" if record.levelno >= logging.ERROR else "warning")
            write(record.getMessage(), library=record.name, exc_info=record.exc_info)


def _configure_process_logging(name: str) -> None:
    """Send this process's log lines, and those of the libraries in it, to the home's log file.

    Which home is said by the environment of a daemon's processes; elsewhere logging is left as it is.
    """
    path = os.environ.get(DAEMON_VARIABLE)
    if not path:
        return
    home = Home(Path(path))
    level = "info"
    # Settings that were broken while the daemon runs must not keep an actor from being restarted.
    with contextlib.suppress(SalamanderError):
        level = load_settings(home).log_level
    configure_logging(home.log_file, level, name)
    library_log = _LibraryLog(_LIBRARY_LEVEL)
    logging.root.handlers = [library_log]
    logging.root.setLevel(_LIBRARY_LEVEL)
