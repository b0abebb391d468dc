"""How the embedded server is configured: PostgreSQL's own defaults, then these."""

from __future__ import annotations

import os

from storage.embedded_layout import PORT, SOCKET_DIRECTORY, Layout
from storage.postgres_process import Account, give_to

#: The file in the data directory that the server is started with; it includes the one that ``initdb`` wrote.
SETTINGS_FILE = "salamander.conf"

_TEMPLATE = """\
# Rewritten at each start of Salamander. ALTER SYSTEM is for settings of yours: it wins over this file.
include 'postgresql.conf'

# Reached through a socket in a private directory, with a password; never over the network.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'

max_connections = {max_connections}
shared_buffers = '128MB'
huge_pages = off
jit = off                                   # queries of milliseconds only lose by it

# What was answered as accepted is on the disk. The size bounds how long recovery takes after a kill.
synchronous_commit = on
max_wal_size = '512MB'

# A client that was killed or hangs holds its row locks no longer than this.
idle_in_transaction_session_timeout = '60s'
client_connection_check_interval = '5s'

# One process fewer; nothing here replicates.
max_logical_replication_workers = 0

# Output goes to the descriptor the daemon gave; in English; without row contents (people's messages).
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_error_verbosity = terse
lc_messages = 'C'
"""


def write_settings(layout: Layout, account: Account | None, max_connections: int) -> None:
    """Write the settings and create the socket's directory.

    The data directory is the account's, which might have been taken over: so what lies there is replaced,
    never followed or written into.

    Raises:
        OSError: the data directory cannot be written.

    """
    path = layout.data / SETTINGS_FILE
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(settings_text(max_connections))
    give_to(account, fresh)
    fresh.replace(path)
    socket_directory = layout.socket.parent
    socket_directory.mkdir(mode=0o700, exist_ok=True)
    give_to(account, socket_directory)


def settings_text(max_connections: int) -> str:
    """Return the text of the settings file."""
    return _TEMPLATE.format(port=PORT, socket_directory=SOCKET_DIRECTORY, max_connections=max_connections)
