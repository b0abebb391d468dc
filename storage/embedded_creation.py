"""Creating the embedded server's data directory, once, so that being killed half-way does no harm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from storage.embedded_layout import SUPERUSER, Layout, create_password
from storage.postgres_process import Account, give_to, kill, processes_in, spawn, way_to
from storage.server_log import ServerLog, explain

if TYPE_CHECKING:
    from storage.locate_postgres import Programs

#: How long ``initdb`` may take, in seconds (measured: 0.5 to 1.5).
CREATION_SECONDS = 180.0


def create_data(layout: Layout, programs: Programs, account: Account | None, log: ServerLog) -> None:
    """Create the data directory under another name, and rename it when it is complete and on the disk.

    Raises:
        StorageUnavailable: ``initdb`` failed.
        OSError: the directory or the password file cannot be written.

    """
    fresh = layout.unfinished_data
    if fresh.exists():
        shutil.rmtree(fresh)
    password = create_password(layout)
    fresh.mkdir(mode=0o700)
    give_to(account, fresh)
    if _run_initdb(layout, programs, account, password, log) != 0:
        raise explain("PostgreSQL's data directory could not be created", layout.directory, log)
    fresh.rename(layout.data)
    _synchronise(layout)


def _run_initdb(layout: Layout, programs: Programs, account: Account | None, password: str, log: ServerLog) -> int:
    """Return the exit status of ``initdb``, whose output goes to the log."""
    output = log.open()
    # A pipe that belongs to the account: the password lies in no file the account could read later.
    reading, writing = os.pipe()
    try:
        if account is not None:
            os.fchown(reading, account.uid, account.gid)
        os.write(writing, f"{password}\n".encode())
        os.close(writing)
        with way_to(layout.unfinished_data, account) as way:
            process = spawn(
                [
                    programs.initdb,
                    f"--pgdata={way.name}",
                    f"--username={SUPERUSER}",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--auth=scram-sha-256",
                    f"--pwfile=/dev/fd/{reading}",
                    "--data-checksums",
                    "--no-instructions",
                ],
                way.start_in,
                account,
                death_signal=signal.SIGKILL,
                output=output,
                inherited=(*way.descriptors, reading),
            )
    finally:
        os.close(reading)
        os.close(output)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CREATION_SECONDS)
    finally:
        process.kill()
        process.wait()
        kill(processes_in([layout.unfinished_data]))
    return process.returncode


def _synchronise(layout: Layout) -> None:
    """Make the rename last through a power failure."""
    descriptor = os.open(layout.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
