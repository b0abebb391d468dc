"""The embedded PostgreSQL server: a real one, started, killed and started again.

As root, every home of these tests lies below a directory of root's own (0700), which the server's account
cannot enter; the core of it is repeated as an ordinary user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from config.errors import ConfigurationInvalid, HomeNotUsable, SalamanderError, StorageUnavailable
from storage import embedded_ownership
from storage.embedded import EmbeddedPostgres, embedded_url
from storage.embedded_layout import LONGEST_SOCKET_PATH, Layout
from storage.locate_postgres import INSTALLED, OLDEST_MAJOR, WHEEL, locate_programs, read_programs
from storage.postgres_process import Account, processes_in
from storage.server_log import ServerLog, reason_in
from storage.shared_programs import programs_for

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20.0
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")

#: A process that runs the server as the daemon does, says so, and then does nothing until it is killed.
DAEMON = """
import os, sys, time
from pathlib import Path
from storage.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print("starting", flush=True)
server.start()
print(server.pid, len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1, flush=True)
while True:
    time.sleep(60)
"""

Make = Callable[..., EmbeddedPostgres]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a server that was started once, to be copied: creating one takes longest."""
    directory = tmp_path_factory.mktemp("prepared") / "pg"
    server = EmbeddedPostgres(directory)
    server.start()
    server.stop()
    return directory


@pytest.fixture
def used(tmp_path: Path, prepared: Path) -> Path:
    """Return the directory of a stopped server, for this test alone."""
    subprocess.run(["cp", "-a", prepared, tmp_path / "pg"], check=True)
    return tmp_path / "pg"


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a maker of servers that are stopped after the test."""
    made: list[EmbeddedPostgres] = []

    def make_server(directory: Path, **options: object) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(directory, **options))  # type: ignore[arg-type]  # passed through
        return made[-1]

    yield make_server
    for server in made:
        server.stop()
        assert server_processes(server.directory) == []


@contextlib.contextmanager
def daemon(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon of its own; its first line tells that it begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(directory)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "starting\n"
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def server_processes(directory: Path) -> list[psutil.Process]:
    layout = Layout.of(directory)
    return processes_in([layout.data, layout.unfinished_data])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.01)


def write_row(url: str, text: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (words text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [text])


def read_rows(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT words FROM kept ORDER BY words")]


def one_value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def kill_server(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.poll() is not None, "the killed server is noticed")


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # on another disk
        shutil.copy2(source, target, follow_symlinks=False)


def core_scenario(directory: Path, programs: Path | None = None) -> None:
    """Start, write, kill, start, stop and start again: rows stay."""
    server = EmbeddedPostgres(directory, programs=programs)
    try:
        server.start()
        server.ensure_database("salamander")
        write_row(server.url("salamander"), "before the kill")
        kill_server(server)
        server.start()
        write_row(server.url("salamander"), "before the stop")
        server.stop()
        server.start()
        assert read_rows(server.url("salamander")) == ["before the kill", "before the stop"]
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().real == (os.geteuid() or pwd.getpwnam("nobody").pw_uid)
    finally:
        server.stop()
    assert server_processes(directory) == []


def test_the_core_works_as_the_user_of_this_run(tmp_path: Path) -> None:
    core_scenario(tmp_path / "pg")


def test_the_core_works_with_the_oldest_release_installed(tmp_path: Path) -> None:
    installed = [directory for pattern in INSTALLED for directory in Path("/").glob(pattern)]
    releases = [programs for directory in installed if (programs := read_programs(directory))]
    releases = [programs for programs in releases if programs.major >= OLDEST_MAJOR]
    if not releases:
        pytest.skip("no PostgreSQL is installed besides the wheel")
    core_scenario(tmp_path / "pg", min(releases, key=lambda programs: programs.major).directory)


@root_only
def test_the_core_works_as_an_ordinary_user(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    public = Path(tempfile.mkdtemp(prefix="salamander-test-", dir="/tmp"))
    try:
        public.chmod(0o755)
        account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
        programs = programs_for(locate_programs(), account, public / "programs").directory
        home = public / "home"
        home.mkdir(mode=0o700)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        # The interpreter may lie where that user cannot go, so all is imported before the user changes.
        code = (
            "import os, sys; from pathlib import Path; import test_embedded_postgres as tests\n"
            f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid}); os.chdir('/')\n"
            "tests.core_scenario(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        finished = subprocess.run(
            [sys.executable, "-c", code, str(home / "pg"), str(programs)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
    finally:
        shutil.rmtree(public)


def test_a_first_start_is_private_and_needs_the_password(make: Make, tmp_path: Path) -> None:
    server = make(tmp_path / "pg")
    server.start()
    layout = Layout.of(tmp_path / "pg")
    for private, mode in (
        (layout.directory, 0o700),
        (layout.data, 0o700),
        (layout.socket.parent, 0o700),
        (layout.socket, 0o700),
        (layout.password, 0o600),
        (layout.log, 0o600),
    ):
        assert stat.S_IMODE(private.stat().st_mode) == mode, private
    for process in server_processes(layout.directory):
        assert process.uids().effective != 0
        assert process.net_connections("inet") == []
    url = server.url("postgres")
    assert embedded_url(tmp_path / "pg", "postgres") == url
    assert one_value(url, "SHOW data_checksums") == "on"
    assert one_value(url, "SHOW synchronous_commit") == "on"
    assert one_value(url, "SHOW listen_addresses") == ""
    assert str(one_value(url, "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")).startswith("SCRAM-")
    password = layout.password.read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password, "wrong"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(url.replace(f":{password}", ""))
    for file in (path for path in layout.directory.rglob("*") if path.is_file() and path != layout.password):
        assert password.encode() not in file.read_bytes(), file


def test_max_connections_follows_the_argument_of_each_start(make: Make, used: Path) -> None:
    for number in (20, 30):
        server = make(used, max_connections=number)
        server.start()
        assert one_value(server.url("postgres"), "SHOW max_connections") == str(number)
        server.stop()


def test_starting_twice_and_stopping_twice_are_harmless(make: Make, used: Path) -> None:
    server = make(used)
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert (server.pid, server.poll()) == (pid, None)
    server.stop()
    server.stop()
    assert server.pid is None


def test_a_database_is_created_once_whatever_its_name(make: Make, used: Path) -> None:
    server = make(used)
    server.start()
    for name in ("whatsmeow", "whatsmeow", 'a "strange"/näme%20'):
        server.ensure_database(name)
        assert one_value(server.url(name), "SELECT current_database()") == name


def test_after_a_kill_no_back_end_survives_and_committed_rows_do(make: Make, used: Path) -> None:
    server = make(used)
    server.start()
    write_row(server.url("postgres"), "committed")
    with psycopg.connect(server.url("postgres")) as busy:
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
        orphan = psutil.Process(busy.info.backend_pid)
        kill_server(server)
        assert server.poll() == -signal.SIGKILL
        assert orphan.is_running()
        began = time.monotonic()
        server.start()
        assert time.monotonic() - began < 5
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        busy.close()
    assert read_rows(server.url("postgres")) == ["committed"]


def test_the_server_ends_with_a_killed_daemon_and_the_next_start_works(make: Make, used: Path) -> None:
    with daemon(used) as process:
        _, threads = read_line(process)
        assert threads == "1"
        write_row(embedded_url(used, "postgres"), "kept")
        process.kill()
        process.wait()
        if sys.platform == "linux":
            wait_until(lambda: server_processes(used) == [], "the server ends with its daemon")
    server = make(used)
    server.start()
    assert read_rows(server.url("postgres")) == ["kept"]


def test_a_start_right_after_the_daemon_was_killed_takes_over(make: Make, used: Path) -> None:
    with daemon(used) as process:
        pid, _ = read_line(process)
        write_row(embedded_url(used, "postgres"), "kept")
        process.kill()
        process.wait()
        server = make(used)
        server.start()
    assert server.pid != int(pid)
    assert read_rows(server.url("postgres")) == ["kept"]


def test_a_server_that_does_not_shut_down_is_killed(make: Make, used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_ownership, "SHUTDOWN_SECONDS", 0.2)
    with daemon(used) as process:
        pid = int(read_line(process)[0])
        write_row(embedded_url(used, "postgres"), "kept")
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        server = make(used)
        server.start()
    assert read_rows(server.url("postgres")) == ["kept"]


@pytest.mark.parametrize("whose", ["a zombie's", "somebody else's", "nobody's"])
def test_a_stale_process_file_does_not_prevent_a_start(make: Make, used: Path, whose: str) -> None:
    server = make(used)
    server.start()
    write_row(server.url("postgres"), "kept")
    layout = Layout.of(used)
    noted = layout.process_file.read_text()
    old = server.pid
    server.stop()
    account = layout.data.stat()
    other = subprocess.Popen(
        ["sleep", "60"] if whose == "somebody else's" else ["true"],
        user=account.st_uid if os.geteuid() == 0 else None,
    )
    try:
        if whose == "a zombie's":
            wait_until(lambda: psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
        elif whose == "nobody's":
            other.wait()
        for stale in (layout.process_file, layout.socket.with_name(f"{layout.socket.name}.lock")):
            stale.write_text(noted.replace(str(old), str(other.pid), 1))
            os.chown(stale, account.st_uid, account.st_gid)
        server.start()
        assert read_rows(server.url("postgres")) == ["kept"]
    finally:
        other.kill()
        other.wait()


def test_a_creation_that_was_killed_half_way_is_begun_anew(make: Make, tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "pg")
    with daemon(layout.directory) as process:
        wait_until((layout.unfinished_data / "pg_hba.conf").exists, "initdb is under way")
        process.kill()
        process.wait()
    assert not layout.data.exists()
    assert layout.unfinished_data.exists()
    server = make(tmp_path / "pg")
    server.start()
    assert not layout.unfinished_data.exists()
    assert one_value(server.url("postgres"), "SELECT 1") == 1


def test_a_second_daemon_is_refused_by_name(make: Make, used: Path) -> None:
    with daemon(used) as process:
        read_line(process)
        with pytest.raises(StorageUnavailable, match=f"already run by process {process.pid}") as refused:
            make(used).start()
        assert refused.value.code == "postgres_in_use"
        assert one_value(embedded_url(used, "postgres"), "SELECT 1") == 1
        process.kill()
        wait_until(lambda: server_processes(used) == [], "the server ends with its daemon")


def test_a_second_server_object_in_one_process_is_refused_too(make: Make, used: Path) -> None:
    first = make(used)
    first.start()
    second = make(used)
    with pytest.raises(StorageUnavailable, match=f"already run by process {os.getpid()}"):
        second.start()
    second.stop()
    assert first.poll() is None


def test_a_forked_child_cannot_stop_the_server(make: Make, used: Path) -> None:
    server = make(used)
    server.start()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(SalamanderError):
            server.stop()
            server.start()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert server.poll() is None
    assert one_value(server.url("postgres"), "SELECT 1") == 1


@pytest.mark.parametrize("name", ["x" * 120, "a b'c\"%ü&?#"])
def test_any_path_will_do(make: Make, tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / "pg"
    server = make(directory)
    server.start()
    server.ensure_database("salamander")
    assert one_value(server.url("salamander"), "SELECT 1") == 1
    links = Path(f"/tmp/salamander-{os.geteuid()}")  # noqa: S108  (the test is about this very directory)
    if len(name) > LONGEST_SOCKET_PATH:
        assert stat.S_IMODE(links.lstat().st_mode) == 0o700
        mine = [link for link in links.iterdir() if link.resolve() == Layout.of(directory).socket.parent]
        assert len(mine) == 1
        mine[0].unlink()  # as a cleaner of /tmp may do
        server.poll()
        assert one_value(server.url("salamander"), "SELECT 1") == 1
        server.stop()
        assert not mine[0].is_symlink()


def test_the_go_client_of_whatsmeow_understands_the_url(make: Make, tmp_path: Path) -> None:
    server = make(tmp_path / "a b'c" / "pg")
    server.start()
    server.ensure_database("whatsmeow")
    code = (
        "import sys; from neonize.client import ClientFactory\n"
        "print('devices:', len(ClientFactory.get_all_devices_from_db(sys.argv[1])))"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, server.url("whatsmeow")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "devices: 0" in answer.stdout, answer.stderr
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'whatsmeow_device'"
    assert one_value(server.url("whatsmeow"), tables) == 1


def test_data_of_another_version_is_left_alone(make: Make, tmp_path: Path) -> None:
    data = Layout.of(tmp_path / "pg").data
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StorageUnavailable, match="written by PostgreSQL 9") as refused:
        make(tmp_path / "pg").start()
    assert "postgres_programs" in refused.value.next_step
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_lost_password_or_damaged_data_is_told_not_replaced(make: Make, used: Path) -> None:
    server = make(used)
    server.start()
    server.stop()
    layout = Layout.of(used)
    password = layout.password.read_text()
    layout.password.unlink()
    with pytest.raises(StorageUnavailable, match="password file"):
        server.start()
    layout.password.write_text(password)
    control = layout.data / "global" / "pg_control"
    control.rename(layout.directory / "pg_control")
    with pytest.raises(StorageUnavailable, match="could not find the database system") as refused:
        server.start()
    assert str(layout.log) in refused.value.next_step
    (layout.directory / "pg_control").rename(control)
    server.start()
    assert one_value(server.url("postgres"), "SELECT 1") == 1


def test_an_unusable_home_or_programs_are_told(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeNotUsable, match="Not a directory"):
        make(tmp_path / "file" / "pg").start()
    with pytest.raises(ConfigurationInvalid, match="postgres_programs"):
        make(tmp_path / "pg", programs=tmp_path).start()
    with pytest.raises(StorageUnavailable, match="No embedded PostgreSQL has been set up") as refused:
        embedded_url(tmp_path / "nowhere", "postgres")
    assert "run.py start" in refused.value.next_step


@root_only
def test_a_directory_of_somebody_else_is_refused(make: Make, tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    directory.mkdir()
    os.chown(directory, 12345, 12345)
    with pytest.raises(HomeNotUsable, match="belongs to user id 12345"):
        make(tmp_path / "pg").start()


@root_only
def test_a_full_disk_is_told(make: Make, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a small disk")
    try:
        server = make(small / "pg")
        with pytest.raises(StorageUnavailable, match="is full") as refused:
            server.start()
        assert refused.value.code == "disk_full"
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        server.start()
        assert one_value(server.url("postgres"), "SELECT 1") == 1
        server.stop()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@root_only
def test_programs_the_account_cannot_reach_are_copied_once_and_repaired(tmp_path: Path) -> None:
    package = locate_programs().directory.parent.parent
    if package.name != WHEEL:
        pytest.skip("the wheel is not installed")
    private = tmp_path / "private"  # below a directory of root alone
    shutil.copytree(package / "pginstall", private / WHEEL / "pginstall", symlinks=True, copy_function=link_or_copy)
    libraries = package.with_name(f"{WHEEL}.libs")
    shutil.copytree(libraries, private / libraries.name, copy_function=link_or_copy)
    programs = locate_programs(private / WHEEL / "pginstall" / "bin")
    shared = Path(tempfile.mkdtemp(prefix="salamander-test-", dir="/tmp"))
    try:
        nobody = pwd.getpwnam("nobody")
        account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
        copied = programs_for(programs, account, shared)
        assert copied.directory.is_relative_to(shared)
        assert copied.version == programs.version
        (copy,) = shared.iterdir()
        born = copy.stat().st_ino
        assert programs_for(programs, account, shared) == copied
        assert copy.stat().st_ino == born
        server = EmbeddedPostgres(tmp_path / "pg", programs=programs.directory, shared_programs=shared)
        server.start()
        assert one_value(server.url("postgres"), "SELECT 1") == 1
        server.stop()
        copied.initdb.write_bytes(b"")
        assert programs_for(programs, account, shared) == copied
        assert copied.initdb.stat().st_size > 0
        assert list(shared.iterdir()) == [copy]
        shared.chmod(0o777)
        with pytest.raises(StorageUnavailable, match="others may write"):
            programs_for(programs, account, shared)
    finally:
        shutil.rmtree(shared)


def test_the_log_is_set_aside_when_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "postgresql.log"
    log = ServerLog(path, largest=100)
    descriptor = log.open()
    os.write(descriptor, b"old\n" * 50)
    log.limit()
    os.write(descriptor, b"FATAL:  new\n")
    os.close(descriptor)
    assert path.read_text() == "FATAL:  new\n" == log.since_start()
    assert (tmp_path / "postgresql.log.1").stat().st_size == 200


def test_the_reason_of_a_failure_is_its_first_severe_line() -> None:
    output = (
        "2026-01-01 00:00:00.000 UTC [7] LOG:  could not bind\n"
        '2026-01-01 00:00:00.000 UTC [7] FATAL:  lock file "x" already exists\n'
        "2026-01-01 00:00:00.000 UTC [7] FATAL:  shutting down\n"
    )
    assert reason_in(output) == 'lock file "x" already exists'
    assert reason_in("initdb: error: directory exists.\n") == "directory exists"
    assert reason_in("nothing of note\n") == ""
