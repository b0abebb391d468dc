"""Creates or updates whatsmeow's tables, as a short process: the store's URL comes on standard input."""

from __future__ import annotations

import asyncio
import os
import sys

from actors.whatsapp.binding import Binding


async def _migrate(store_url: str) -> str:
    return Binding().migrate(store_url)


if __name__ == "__main__":
    problem = asyncio.run(_migrate(sys.stdin.read().strip()))
    if problem:
        sys.stderr.write(f"{problem}\n")
    sys.stderr.flush()
    # The library's threads have no part in an orderly end.
    os._exit(1 if problem else 0)
