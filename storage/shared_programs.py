"""A copy of PostgreSQL's programs for the server's account, made when it cannot run them where they are."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import StorageUnavailable
from storage.locate_postgres import WHEEL, Programs
from storage.postgres_process import Account, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where root keeps copies for everybody, one directory a build.
SHARED_PROGRAMS = Path("/var/lib/salamander")

#: What one copy takes, generously, in bytes (release 18.6: 41 MB).
_COPY_BYTES = 60_000_000
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_RUN_SECONDS = 10.0


def programs_for(programs: Programs, account: Account | None, shared: Path = SHARED_PROGRAMS) -> Programs:
    """Return programs that ``account`` may run: the given ones, or a copy of the wheel's below ``shared``.

    A virtual environment below root's home (0700) cannot be entered by the account; only then is a copy made.

    Raises:
        StorageUnavailable: the account cannot run them and they cannot be copied.

    """
    if account is None or _runs(programs, account):
        return programs
    install = programs.directory.parent
    package = install.parent
    if (install.name, package.name) != ("pginstall", WHEEL):
        raise _not_runnable(programs, account, "they lie in a directory it may not enter")
    # The programs find their libraries relative to themselves, so both are copied with their relative places.
    sources = [install, package.with_name(f"{WHEEL}.libs")]
    try:
        copy = _shared_copy([source for source in sources if source.exists()], package.parent, programs, shared)
    except OSError as error:
        # A copy that fails in the middle tells of many files, and not by number.
        if error.errno in _NO_ROOM or (shared.exists() and shutil.disk_usage(shared).free < _COPY_BYTES):
            raise StorageUnavailable(
                f"The disk that holds {shared} is full.",
                f"Free {_COPY_BYTES // 1_000_000} MB, then start again.",
                code="disk_full",
            ) from error
        why = error.strerror or "not every file could be read"
        raise _not_runnable(programs, account, f"they cannot be copied to {shared} ({why})") from error
    copied = Programs(copy / programs.directory.relative_to(package.parent), programs.version)
    if not _runs(copied, account):
        raise _not_runnable(programs, account, f"their copy in {copy} does not run either")
    return copied


def _not_runnable(programs: Programs, account: Account, reason: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"User {account.name} may not run PostgreSQL's programs in {programs.directory}: {reason}.",
        "Run Salamander as an ordinary user, or install PostgreSQL from your distribution.",
        code="postgres_not_runnable",
    )


def _runs(programs: Programs, account: Account) -> bool:
    """Return whether the account can run both programs, their libraries included: by letting it."""
    for program in (programs.postgres, programs.initdb):
        try:
            process = spawn(
                [program, "--version"],
                Path("/"),
                account,
                death_signal=signal.SIGKILL,
                output=subprocess.DEVNULL,
            )
        except StorageUnavailable as error:
            if isinstance(error.__cause__, PermissionError):
                return False
            raise
        try:
            if process.wait(_RUN_SECONDS) != 0:
                return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
    return True


def _shared_copy(sources: list[Path], base: Path, programs: Programs, shared: Path) -> Path:
    """Return a complete copy of ``sources``, named by its content: builds never overwrite each other."""
    manifest = _manifest(sources, base)
    digest = hashlib.sha256("\n".join(manifest).encode("utf-8", "surrogateescape")).hexdigest()
    target = shared / f"postgresql-{programs.version}-{digest[:12]}"
    _create_trusted(shared)
    if target.exists():
        if _manifest([target / source.relative_to(base) for source in sources], target) == manifest:
            return target
        shutil.rmtree(target)  # cut short by a power failure: the name promises what is not there
    fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=shared))
    try:
        for source in sources:
            shutil.copytree(source, fresh / source.relative_to(base), symlinks=True)
        _open_to_everybody(fresh)
        # Somebody else may have finished the same copy meanwhile; theirs is as good.
        with contextlib.suppress(OSError):
            fresh.rename(target)
        if not target.exists():
            raise OSError(errno.EIO, "the copy could not be put in place")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _create_trusted(directory: Path) -> None:
    """Create the directory of shared copies; refuse one in which somebody but us could replace a program."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others may write to it")
    directory.chmod(0o755)  # whatever the umask was


def _open_to_everybody(directory: Path) -> None:
    directory.chmod(0o755)
    for path in _walk(directory):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


def _manifest(roots: list[Path], base: Path) -> list[str]:
    """Return one line per file below ``roots``: its name relative to ``base`` and its size."""
    return sorted(
        f"{path.relative_to(base)} {path.lstat().st_size}"
        for root in roots
        for path in _walk(root)
        if path.is_symlink() or not path.is_dir()
    )


def _walk(directory: Path) -> Iterator[Path]:
    yield from directory.rglob("*")
