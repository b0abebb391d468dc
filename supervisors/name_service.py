"""Loads Thespian's network addresses without asking a name service.

At import Thespian looks up this machine's own name, which contacts the DNS server; where that does not answer,
each command of ours would hang for its time-outs. Only numeric addresses are used here. Import this module
before any other of ``thespian.system``.
"""

from __future__ import annotations

import importlib
import socket

_gethostname, _getfqdn = socket.gethostname, socket.getfqdn
socket.gethostname = lambda: "localhost"
socket.getfqdn = lambda name="": name or "localhost"
try:
    importlib.import_module("thespian.system.transport.IPBase")
finally:
    socket.gethostname, socket.getfqdn = _gethostname, _getfqdn
