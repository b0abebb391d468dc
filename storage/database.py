"""Connections to PostgreSQL: one for actors that must not have threads, a bounded pool for those that may."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from config.errors import StorageUnavailable
from config.home import Home
from config.settings import Settings
from storage.embedded_layout import POOLER_PORT, embedded_url, pooler_is_there

#: The databases of the embedded server: ours, and whatsmeow's own (it must not share one with us).
SALAMANDER_DATABASE = "salamander"
WHATSMEOW_DATABASE = "whatsmeow"

#: How long a connection attempt, and one statement, may take. Short: actors wait on them.
_CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 15_000
#: How long an answer may take to begin, in seconds. The server's own limit is of no use when the server hangs.
_ANSWER_SECONDS = 20.0
#: A supervisor hangs with it no longer than this: it must show in time that it lives.
SUPERVISOR_PATIENCE = 2.5
#: After a use that took this long in vain, the server is left alone for half as long, in seconds.
_SLOW_SECONDS = 1.0
#: A connection unused for this long is checked before use, since the server may have been restarted.
_IDLE_CHECK_SECONDS = 1.0
#: The same for a pool's, whose users try again by themselves: longer than the pause between two looks at lanes.
_POOL_CHECK_SECONDS = 2.0

Result = TypeVar("Result")
Row = dict[str, Any]
Connection = psycopg.Connection[Row]


class ThroughPooler(str):
    """A URL that leads through PgBouncer in transaction mode: each transaction may meet another connection."""

    __slots__ = ()


class ByIndexOnly(str):
    """A URL for an actor all of whose statements go by an index, and that keeps its plans for days.

    A plan that was made while a table was all but empty reads the whole table ever after, until PostgreSQL looks at the
    table again; with a burst into a new outbox each message then reads all before it (also to check what it refers to).
    """

    __slots__ = ()


def database_url(home: Home, settings: Settings) -> str:
    """Return the libpq URL of Salamander's database; it says by its type whether it leads through PgBouncer."""
    given = settings.database_url
    return _url(home, settings, given.get_secret_value() if given else None, SALAMANDER_DATABASE)


def direct_url(home: Home, settings: Settings) -> str:
    """Return the same past our own PgBouncer: for an actor with one connection, whose statements stay prepared.

    A server of the operator's is reached as the operator says.
    """
    if settings.database_url is not None:
        url = database_url(home, settings)
        return url if isinstance(url, ThroughPooler) else ByIndexOnly(url)
    return ByIndexOnly(embedded_url(home.postgres, SALAMANDER_DATABASE))


def whatsmeow_url(home: Home, settings: Settings) -> str:
    """Return the libpq URL of whatsmeow's database, likewise."""
    given = settings.whatsmeow_database_url
    return _url(home, settings, given.get_secret_value() if given else None, WHATSMEOW_DATABASE)


def _url(home: Home, settings: Settings, given: str | None, database: str) -> str:
    if given is not None:
        return ThroughPooler(given) if settings.pgbouncer == "yours" else given
    if settings.pgbouncer != "off" and pooler_is_there(home.postgres):
        return ThroughPooler(embedded_url(home.postgres, database, port=POOLER_PORT))
    return embedded_url(home.postgres, database)


def connect(url: str) -> Connection:
    """Open one connection that gives rows as dictionaries.

    Raises:
        StorageUnavailable: the server cannot be reached; the sentence never holds the URL.
    """
    with storage_errors():
        return psycopg.connect(url, row_factory=dict_row, **_connect_arguments(url))


def _connect_arguments(url: str) -> dict[str, Any]:
    _check_url(url)
    arguments = {"autocommit": True, "connect_timeout": _CONNECT_SECONDS, "application_name": "salamander"}
    if isinstance(url, ThroughPooler):
        # A prepared statement would meet another connection; PgBouncer sets its connections' options itself.
        return {**arguments, "prepare_threshold": None}
    options = f"-c statement_timeout={STATEMENT_MILLISECONDS} -c synchronous_commit=on"
    if isinstance(url, ByIndexOnly):
        options += " -c enable_seqscan=off"
    return {**arguments, "options": options}


def _check_url(url: str) -> None:
    """Refuse a URL that libpq cannot read, or reads in pieces: its words for that quote them, password and all."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        parts = {"port": "unreadable"}
    ports = str(parts.get("port") or "").split(",")
    hosts = str(parts.get("host") or "").split(",")
    if all(port.isdecimal() for port in ports if port) and not any("@" in host[1:] for host in hosts):
        return
    raise StorageUnavailable(
        "The database URL cannot be read.",
        "Correct it in the configuration; special characters of a password are written as %XX.",
    )


#: Internal errors that are the server's trouble: its own (XX000), and (without a code) psycopg's, when the end of a
#: connection came in the middle of an answer. Others are mistakes of ours.
_OF_THE_SERVER = frozenset({None, "XX000"})


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a server that is away, refuses or has no room into :class:`StorageUnavailable`."""
    try:
        yield
    except PoolTimeout:
        raise _unavailable("no connection became free in time") from None
    except psycopg.errors.DiskFull:
        raise _unavailable("its disk is full") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise _unavailable(_first_line(error)) from None
    except psycopg.InternalError as error:
        if error.sqlstate not in _OF_THE_SERVER:
            raise
        raise _unavailable(_first_line(error)) from None


def _unavailable(reason: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"PostgreSQL cannot do the work: {reason}.",
        "Nothing needs a restart: when it is back, everything goes on within seconds. "
        "See run.py logs, or PostgreSQL's own log in the home.",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip(" .") if lines else type(error).__name__


class Database(ABC):
    """Where transactions come from."""

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """Run a block in one transaction, committed at its end, rolled back when it raises.

        Raises:
            StorageUnavailable: PostgreSQL is away or refuses; nothing was committed, or (when the server went
                away during the commit itself) nobody can tell: callers use idempotent statements.
        """

    def statements(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection for statements that each stand alone: they are committed by the end of the block.

        Where it can be, each is committed as it ends: a transaction costs two more ways to the server and back.

        Raises:
            StorageUnavailable: PostgreSQL is away or refuses; nobody can tell what the last statement did.
        """
        return self.transaction()

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""


class _ImpatientConnection(psycopg.Connection[Row]):
    """A connection that is closed when the server neither answers nor goes away."""

    patience = _ANSWER_SECONDS

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Wait as psycopg does, but not for ever."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.close()  # an answer that came later would be taken for that to the next question
            raise


class SingleConnection(Database):
    """One connection, opened when first used and again when lost. It needs no thread.

    Args:
        url: the database.
        patience: how long an answer may take to begin, in seconds.
    """

    def __init__(self, url: str, *, patience: float = _ANSWER_SECONDS) -> None:
        self._url = url
        self._patience = patience
        self._connection: _ImpatientConnection | None = None
        self._used = 0.0
        self._not_before = 0.0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a block in one transaction on the one connection."""
        with self.statements() as connection, connection.transaction():
            yield connection

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """Lend the one connection without a transaction."""
        began = time.monotonic()
        if began < self._not_before:
            raise _unavailable("it did not answer a moment ago")
        try:
            with storage_errors():
                connection = self._usable()
                try:
                    yield connection
                except psycopg.InternalError:
                    self.close()  # what it would answer next may belong to another question
                    raise
                finally:
                    self._used = time.monotonic()
                    if connection.closed or connection.broken:
                        self.close()
        except StorageUnavailable:
            taken = time.monotonic() - began
            if taken > _SLOW_SECONDS:
                self._not_before = began + 1.5 * taken
            raise

    def _usable(self) -> _ImpatientConnection:
        if self._connection is not None and time.monotonic() - self._used > _IDLE_CHECK_SECONDS:
            asked = time.monotonic()
            try:
                self._connection.execute("select 1")
            except psycopg.Error:
                self.close()
                if time.monotonic() - asked > _SLOW_SECONDS:
                    raise  # it hangs; to connect anew would only take as long again
        if self._connection is None:
            arguments = _connect_arguments(self._url)
            arguments["connect_timeout"] = min(_CONNECT_SECONDS, max(2, int(self._patience)))
            self._connection = _ImpatientConnection.connect(self._url, row_factory=dict_row, **arguments)
            self._connection.patience = self._patience
        return self._connection

    def close(self) -> None:
        """Close the connection; the next transaction opens a new one."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


class _PooledConnection(psycopg.Connection[Row]):
    """A connection that knows when it was used last."""

    used_at = float("-inf")


def _note_use(connection: Connection) -> None:
    if isinstance(connection, _PooledConnection):
        connection.used_at = time.monotonic()


def _check_after_a_pause(connection: Connection) -> None:
    """Ask a server whether it is there, unless it answered a moment ago: the question costs as much as most work."""
    if not isinstance(connection, _PooledConnection) or time.monotonic() - connection.used_at > _POOL_CHECK_SECONDS:
        ConnectionPool.check_connection(connection)


class PooledConnections(Database):
    """At most ``size`` connections, shared by the threads of one process. Open it only after the fork."""

    def __init__(self, url: str, size: int) -> None:
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            connection_class=_PooledConnection,
            min_size=0,
            max_size=size,
            max_idle=30.0,
            timeout=_CONNECT_SECONDS,
            reconnect_timeout=_CONNECT_SECONDS,
            kwargs={**_connect_arguments(url), "row_factory": dict_row},
            reset=_note_use,
            check=_check_after_a_pause,
            open=True,
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a block in one transaction on a connection of the pool."""
        with self.statements() as connection, connection.transaction():
            yield connection

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """Lend a connection of the pool without a transaction: each statement is committed as it ends.

        Raises:
            StorageUnavailable: PostgreSQL is away or refuses; nobody can tell what the last statement did.
        """
        with storage_errors(), self._pool.connection() as connection:
            yield connection

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()
