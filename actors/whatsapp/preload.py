"""What every shard needs in its memory, loaded once by the process that they are forked from.

A shard's Python modules are 20 MB and half a second of work; forked ones share both. The WhatsApp library itself
stays out: its Go runtime starts threads, and what is forked after that hangs. So neonize's modules of plain data are
loaded without the package around them, which would load the rest.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import threading
from types import ModuleType

from config.logging import logger

#: What the library's Python side and a shard's own code import. None of them starts a thread.
_MODULES = (
    "actors.whatsapp.shard",
    "asyncio",
    "pylibmagic",  # first: it brings the C library that `magic` looks for
    "magic",
    "bs4",
    "httpx",
    "linkpreview",
    "phonenumbers",
    "PIL.Image",
    "requests",
    "segno",
    "tqdm",
)
#: The protocol buffers among neonize's modules; the largest by far.
_NEONIZE = "neonize"
_DATA_MODULES = (
    "neonize.proto.Neonize_pb2",
    "neonize.proto.waE2E.WAWebProtobufsE2E_pb2",
    "neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2",
)


def preload() -> None:
    """Load what shards share. It never fails: what cannot be loaded here is loaded by each shard for itself."""
    for name in _MODULES:
        _load(name)
    _load_data_modules()
    if threading.active_count() > 1:
        logger().error("Loading what shards share has started a thread; forked shards may hang")
    # The collector would write into each object, and so make every shard's copy of it its own.
    gc.collect()
    gc.freeze()


def _load_data_modules() -> None:
    """Load neonize's protocol buffers under their own names, without running the package's ``__init__``."""
    found = importlib.util.find_spec(_NEONIZE)
    if found is None or found.submodule_search_locations is None or _NEONIZE in sys.modules:
        return
    stand_in = ModuleType(_NEONIZE)
    stand_in.__path__ = list(found.submodule_search_locations)
    sys.modules[_NEONIZE] = stand_in
    try:
        for name in _DATA_MODULES:
            _load(name)
    finally:
        del sys.modules[_NEONIZE]


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - another version of the library may lack it
        logger().warning("A module could not be loaded for all shards", module=name, reason=repr(error))
