"""The hardened actor system, with real processes: what strangers cannot do, what sudden death leads to."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from thespian.actors import ActorAddress, ActorSystemException

from config.errors import ConfigurationInvalid, DaemonNotRunning, HomeNotUsable, NoAnswer, SalamanderError
from config.home import DAEMON_VARIABLE, Home
from supervisors import system_base
from supervisors.actor_system import Endpoint, ask, connect_actor_system, disconnect, lookup, start_actor_system
from supervisors.frames import FrameSeal
from supervisors.processes import (
    daemon_processes,
    kill_and_wait,
    process_is_alive,
    process_started,
    sweep,
)
from supervisors.transport import MOST_STRANGERS, BoundAddress
from tests.support import actor_system_actors as actors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SECONDS = 10.0


def wait_for(what: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Poll until ``what()`` is true; return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


class Daemon:
    """An actor system in a process tree of its own."""

    def __init__(self, path: Path, port: int = 0) -> None:
        self.home = Home(path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", actors.MODULE, str(path), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), DAEMON_VARIABLE: str(path), "EXIT_MARKS": str(path)},
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.port, self.admin = int(told["port"]), int(told["admin"])
        self.system = connect_actor_system(self.home, "127.0.0.1", self.port)

    def create(self, actor: str, name: str | None = None) -> ActorAddress:
        return self.system.createActor(f"{actors.MODULE}.{actor}", globalName=name)

    def describe(self, address: ActorAddress) -> actors.Description:
        answer = ask(self.system, address, actors.Describe(), SECONDS)
        assert isinstance(answer, actors.Description)
        return answer

    def parent_of(self, children: int) -> tuple[ActorAddress, actors.Description]:
        parent = self.create("Parent")
        self.system.tell(parent, actors.CreateChildren(children))
        return parent, wait_for(lambda: len((found := self.describe(parent)).children) == children and found)

    def pids(self) -> set[int]:
        """The processes of the actor system, without the one that started it."""
        return {process.pid for process in daemon_processes(self.home)} - {self.process.pid}

    def named(self, name: str) -> list[int]:
        return [process.pid for process in daemon_processes(self.home) if process.name() == name]

    def stop(self) -> None:
        disconnect(self.system)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        sweep(self.home)
        self.process.wait(SECONDS)
        self.process.stdout.close()


def connections_of(pid: int) -> set[tuple[int, int]]:
    """Return the (local, remote) ports of a process's established TCP connections."""
    found = psutil.Process(pid).net_connections("tcp")
    return {(each.laddr.port, each.raddr.port) for each in found if each.status == psutil.CONN_ESTABLISHED}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for the tests that do it no harm."""
    running = Daemon(tmp_path_factory.mktemp("home"))
    yield running
    running.stop()


@pytest.fixture
def mortal_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that may be killed."""
    running = Daemon(tmp_path)
    yield running
    running.stop()


def port_of(address: ActorAddress) -> int:
    return int(address.addressDetails.sockname[1])


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def send_raw(port: int, data: bytes) -> bytes:
    """Send ``data`` as a stranger; return what is answered before the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            return connection.recv(1000)
    return b""


def framed(body: bytes) -> bytes:
    return str(len(body)).encode() + b">" + body


# --- strangers -------------------------------------------------------------------------------------------


def attacks(mark: Path) -> dict[str, bytes]:
    bomb = pickle.dumps(("sender", Bomb(mark)))
    sealed_by_another = FrameSeal(b"x" * 32).dumps(("sender", Bomb(mark)))
    return {
        "a raw pickle": framed(bomb),
        "a pickle behind zeros": framed(bytes(64) + bomb),
        "a frame sealed with another key": framed(sealed_by_another),
        "a giant frame": b"999999999999>" + bytes(100),
        "the largest frame": b"67108864>" + bytes(100_000),
        "a negative size": b"-5>" + bytes(100),
        "no size": b">" + bytes(100),
        "an empty frame": b"0>" + bytes(100),
        "garbage": bytes(range(256)) * 100,
        "endless digits": b"1" * 100_000,
    }


@pytest.mark.parametrize("name", attacks(Path()))
def test_a_frame_of_a_stranger_runs_nothing_and_disturbs_nobody(daemon: Daemon, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    actor = daemon.create("Child", name="target")
    own_port = port_of(daemon.system._systemBase.transport.myAddress)
    assert daemon.system.ask(actor, actors.Describe(), SECONDS)
    listener = threading.Thread(target=lambda: daemon.system.listen(0.5))
    listener.start()
    for port in (daemon.port, port_of(actor), own_port):
        assert send_raw(port, attacks(mark)[name]) == b"", "a stranger is not answered"
    listener.join()
    assert not mark.exists()
    assert lookup(daemon.system, "target") == actor
    assert daemon.describe(actor).pid
    assert daemon.system.ask(actor, actors.Describe(), SECONDS)


def test_an_unsealed_frame_would_run_code_without_the_seal(tmp_path: Path) -> None:
    """The attack of the tests above is a real one."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))  # noqa: S301
    assert (tmp_path / "executed").exists()


def test_hundreds_of_silent_connections_do_not_keep_anybody_out(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    pid = daemon.describe(actor).pid
    before = psutil.Process(pid).num_fds()
    with contextlib.ExitStack() as connections:
        for number in range(MOST_STRANGERS * 3):
            connection = socket.create_connection(("127.0.0.1", port_of(actor)), timeout=SECONDS)
            connections.enter_context(connection)
            connection.sendall(b"100>"[: number % 4])
        assert daemon.describe(actor).pid == pid
        assert wait_for(lambda: psutil.Process(pid).num_fds() <= before + MOST_STRANGERS + 5)
        assert daemon.describe(actor).pid == pid


def test_listeners_that_forge_acknowledgements_do_not_silence_an_actor(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    reached = threading.Semaphore(0)

    def forge(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(10)
            connection.sendall(b"90>" + bytes(90))
            reached.release()

    with contextlib.ExitStack() as listeners:
        addresses = []
        threads = []
        for _ in range(30):
            listener = listeners.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(SECONDS)
            addresses.append(ActorAddress(BoundAddress("127.0.0.1", listener.getsockname()[1], True)))
            threads.append(threading.Thread(target=forge, args=(listener,)))
            threads[-1].start()
        daemon.system.tell(actor, actors.SendTo(tuple(addresses)))
        for _ in range(20):  # as many transmissions as Thespian has under way at once
            assert reached.acquire(timeout=SECONDS)
        assert daemon.describe(actor).pid
        assert daemon.describe(actor).pid
    for thread in threads:
        thread.join()


def test_nothing_listens_beyond_loopback(daemon: Daemon) -> None:
    daemon.parent_of(2)
    processes = [*daemon_processes(daemon.home), psutil.Process()]
    assert {"sal-admin", "sal-logger", "sal-Parent", "sal-Child"} <= {each.name() for each in processes}
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    ]
    assert len(listening) >= 5
    assert set(listening) == {"127.0.0.1"}


# --- death -----------------------------------------------------------------------------------------------


def test_children_killed_together_are_all_reported_once(daemon: Daemon) -> None:
    parent, _ = daemon.parent_of(0)
    dead: set[int] = set()

    def living() -> set[int]:
        return set(daemon.describe(parent).children) - dead

    def all_reported() -> bool:
        return len(daemon.describe(parent).exits) == len(dead)

    for _ in range(10):
        daemon.system.tell(parent, actors.CreateChildren(10))
        wait_for(lambda: len(living()) == 10)
        victims = living()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        dead |= victims
        wait_for(all_reported)
    assert sorted(daemon.describe(parent).exits) == list(range(100))


@pytest.mark.parametrize("how", ["segv", "abort", "exit"])
def test_a_broken_child_dies_and_is_reported(daemon: Daemon, how: str) -> None:
    parent, described = daemon.parent_of(1)
    ((pid, _),) = described.children.items()
    child = daemon.create("Child")
    assert daemon.describe(child).fatal_signals_are_default
    number = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "exit": signal.SIGKILL}[how]
    os.kill(pid, number)
    wait_for(lambda: daemon.describe(parent).exits == (0,))
    pid = daemon.describe(child).pid
    daemon.system.tell(child, actors.BreakDown(how))
    wait_for(lambda: not process_is_alive(pid))


def test_fatal_signals_have_their_defaults_in_any_actor(daemon: Daemon) -> None:
    assert daemon.describe(daemon.create("Plain")).fatal_signals_are_default


def test_sigterm_lets_an_actor_tidy_up_and_is_reported_once(daemon: Daemon) -> None:
    parent, described = daemon.parent_of(1)
    ((pid, _),) = described.children.items()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not process_is_alive(pid))
    wait_for(lambda: daemon.describe(parent).exits)
    assert (daemon.home.path / str(pid)).exists()
    assert daemon.describe(parent).exits == (0,)


@pytest.mark.parametrize("actor", ["Stillborn", "Unbuildable"])
def test_a_child_that_dies_in_its_constructor_is_reported_once(daemon: Daemon, actor: str) -> None:
    parent, _ = daemon.parent_of(0)
    daemon.system.tell(parent, actors.CreateChildren(1, f"{actors.MODULE}.{actor}"))
    daemon.system.tell(parent, actors.CreateChildren(1))
    assert wait_for(lambda: (found := daemon.describe(parent)).children and found.exits) == (0,)


def test_a_named_actor_that_dies_in_its_constructor_is_answered_and_frees_its_name(daemon: Daemon) -> None:
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(ActorSystemException):
            daemon.create("Stillborn", name="unlucky")
        assert time.monotonic() - began < 5
    assert lookup(daemon.system, "unlucky") is None
    assert daemon.describe(daemon.create("Child", name="unlucky"))


def test_names_of_actors_killed_together_are_all_free(daemon: Daemon) -> None:
    names = [f"together-{number}" for number in range(10)]
    for pid in [daemon.describe(daemon.create("Child", name=name)).pid for name in names]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(lookup(daemon.system, name) is None for name in names))


def test_a_killed_named_actor_can_be_created_again(daemon: Daemon) -> None:
    pid = daemon.describe(daemon.create("Child", name="router")).pid
    began = time.monotonic()
    assert kill_and_wait(pid, process_started(pid), SECONDS)
    wait_for(lambda: lookup(daemon.system, "router") is None)
    assert daemon.describe(daemon.create("Child", name="router")).pid != pid
    assert time.monotonic() - began < 2


def test_children_of_a_killed_supervisor_die_with_it(daemon: Daemon) -> None:
    _, described = daemon.parent_of(5)
    os.kill(described.pid, signal.SIGKILL)
    wait_for(lambda: not any(process_is_alive(pid) for pid in described.children), seconds=1)


@pytest.mark.parametrize("victim", ["the starter", "the Admin"])
def test_no_process_and_no_socket_outlives(mortal_daemon: Daemon, victim: str) -> None:
    mortal_daemon.parent_of(3)
    pids = mortal_daemon.pids()
    assert len(pids) == 6
    os.kill(mortal_daemon.process.pid if victim == "the starter" else mortal_daemon.admin, signal.SIGKILL)
    wait_for(lambda: not any(process_is_alive(pid) for pid in pids), seconds=1)
    again = Daemon(mortal_daemon.home.path, mortal_daemon.port)
    try:
        assert again.describe(again.create("Child"))
    finally:
        again.stop()


def test_the_system_survives_its_logger(mortal_daemon: Daemon) -> None:
    actor = mortal_daemon.create("Child")
    (logger,) = mortal_daemon.named("sal-logger")
    assert kill_and_wait(logger, None, SECONDS)
    assert wait_for(lambda: mortal_daemon.named("sal-logger")) != [logger]
    assert process_is_alive(mortal_daemon.admin)
    assert mortal_daemon.describe(actor)
    assert mortal_daemon.describe(mortal_daemon.create("Parent"))


def test_an_orderly_shutdown_leaves_nothing(mortal_daemon: Daemon) -> None:
    _, described = mortal_daemon.parent_of(3)
    pids = mortal_daemon.pids()
    mortal_daemon.stop()
    assert mortal_daemon.process.returncode == 0
    assert not any(process_is_alive(pid) for pid in pids)
    assert all((mortal_daemon.home.path / str(pid)).exists() for pid in [described.pid, *described.children])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", mortal_daemon.port)) != 0


# --- starting, connecting, asking ------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_connecting_without_a_daemon_fails_at_once_and_starts_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(DaemonNotRunning):
        connect_actor_system(home, "127.0.0.1", free_port())
    home.create()
    children = psutil.Process().children()
    began = time.monotonic()
    with pytest.raises(DaemonNotRunning):
        connect_actor_system(home, "127.0.0.1", free_port())
    assert time.monotonic() - began < 1
    assert psutil.Process().children() == children


def test_another_program_on_the_port_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.create()
    monkeypatch.setattr(system_base, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(NoAnswer, match=f":{port} does not answer"):
            connect_actor_system(home, "127.0.0.1", port)
        with pytest.raises(SalamanderError, match=f"Port {port} of 127.0.0.1 cannot be used") as caught:
            start_actor_system(home, "127.0.0.1", port)
        assert caught.value.code == "port_taken"


def test_a_running_system_is_never_adopted(mortal_daemon: Daemon) -> None:
    began = time.monotonic()
    with pytest.raises(SalamanderError) as caught:
        start_actor_system(mortal_daemon.home, "127.0.0.1", mortal_daemon.port)
    assert caught.value.code == "port_taken"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("address", ["0.0.0.0", "localhost", "::1", "192.0.2.1"])  # noqa: S104
def test_only_one_address_of_this_machine_is_bound(tmp_path: Path, address: str) -> None:
    home = Home(tmp_path)
    home.create()
    with pytest.raises(ConfigurationInvalid, match="bind_address"):
        start_actor_system(home, address, 0)


def test_no_name_service_is_asked() -> None:
    code = """
import socket
asked, original = [], socket.getaddrinfo
def record(host, *rest, **more):
    asked.append(host)
    return original(host, *rest, **more)
socket.getaddrinfo = record
import supervisors.actor_system
assert set(asked) <= {None, "localhost", "127.0.0.1"}, asked
assert "lambda" not in socket.getfqdn.__name__
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT, timeout=SECONDS)


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    home.frame_key.write_bytes(b"short")
    with pytest.raises(HomeNotUsable, match=re.escape("frame.key")):
        start_actor_system(home, "127.0.0.1", 0)


def test_looking_up_a_missing_name_creates_nothing(daemon: Daemon) -> None:
    pids = daemon.pids()
    began = time.monotonic()
    assert lookup(daemon.system, "nobody") is None
    assert lookup(daemon.system, "nobody") is None
    assert time.monotonic() - began < 1
    assert daemon.pids() == pids
    actor = daemon.create("Child", name="nobody")
    assert lookup(daemon.system, "nobody") == actor


def test_a_question_to_a_dead_actor_is_answered_with_none_at_once(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    pid = daemon.describe(actor).pid
    kill_and_wait(pid, None, SECONDS)
    began = time.monotonic()
    assert ask(daemon.system, actor, actors.Describe(), SECONDS) is None
    assert time.monotonic() - began < 2


def test_a_message_for_the_former_owner_of_a_port_reaches_nobody(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    former = ActorAddress(BoundAddress("127.0.0.1", port_of(actor), True))
    former.addressDetails.incarnation = "former"
    assert former != actor
    daemon.describe(actor)
    began = time.monotonic()
    assert ask(daemon.system, former, actors.Describe(), SECONDS) is None
    assert time.monotonic() - began < 2
    assert daemon.describe(actor)


def test_a_late_answer_is_not_taken_for_the_next_questions(daemon: Daemon) -> None:
    slow, quick = daemon.create("Child"), daemon.create("Child")
    pid = daemon.describe(quick).pid
    daemon.system.tell(slow, actors.Sleep(0.5))
    assert ask(daemon.system, slow, actors.Describe(), 0.1) is None
    assert all(daemon.describe(quick).pid == pid for _ in range(20))
    assert daemon.describe(slow).pid != pid


def test_an_endpoint_asks_again_and_again_over_one_connection_and_passes_over_what_is_no_answer(
    daemon: Daemon,
) -> None:
    quick = daemon.create("Child")
    pid = daemon.describe(quick).pid
    with contextlib.closing(Endpoint(daemon.system)) as endpoint:

        def asked() -> int:
            answer = endpoint.ask(quick, actors.Describe(), SECONDS)
            assert isinstance(answer, actors.Description)
            return answer.pid

        assert asked() == pid
        connected = connections_of(os.getpid())
        assert {asked() for _ in range(20)} == {pid}
        assert connections_of(os.getpid()) == connected
        began = time.monotonic()
        assert endpoint.ask(quick, actors.Describe(), 0.2, lambda answer: answer == "another") is None
        assert 0.2 <= time.monotonic() - began < SECONDS
        assert asked() == pid


# --- the base of actors ----------------------------------------------------------------------------------


def test_a_handler_that_raises_runs_once_is_logged_and_the_actor_lives_on(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    pid = daemon.describe(actor).pid
    daemon.system.tell(actor, actors.Raise())
    assert daemon.describe(actor) == actors.Description(pid, handled=("raise",))
    lines = [json.loads(line) for line in daemon.home.log_file.read_text().splitlines()]
    (line,) = [line for line in lines if line["pid"] == pid]
    assert line["actor"] == "Child"
    assert line["message_class"] == "Raise"
    assert "as asked" in line["exception"]


def test_an_unknown_message_does_no_harm(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    assert ask(daemon.system, actor, "what is this?", 0.1) is None
    assert daemon.describe(actor)


def test_a_failing_constructor_is_logged(daemon: Daemon) -> None:
    parent, _ = daemon.parent_of(0)
    daemon.system.tell(parent, actors.CreateChildren(1, f"{actors.MODULE}.Unbuildable"))
    wait_for(lambda: daemon.describe(parent).exits)
    wait_for(lambda: "not to be built" in daemon.home.log_file.read_text())


def test_an_actor_is_woken_with_its_payload(daemon: Daemon) -> None:
    actor = daemon.create("Child")
    daemon.system.tell(actor, actors.Wake(0.05))
    wait_for(lambda: daemon.describe(actor).handled == ("payload",))


def test_a_watched_descriptor_stays_watched(daemon: Daemon) -> None:
    actor = daemon.create("Watcher")
    daemon.system.tell(actor, actors.Wake(0))
    wait_for(lambda: daemon.describe(actor).handled == ("x", "x", "x"))
