"""``python -m simulator DIRECTORY``: run the simulator until it is told to stop."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from config.errors import SalamanderError
from config.logging import configure_logging
from simulator.addresses import LOG_FILE
from simulator.server import run_simulator


def main() -> int:
    """Read the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where everything is kept")
    parser.add_argument("--proxy-port", type=int, default=0, help="port of the proxy (default: a free one)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-file", type=Path, help=f"default: DIRECTORY/{LOG_FILE}")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        arguments.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file = arguments.log_file or arguments.directory / LOG_FILE
        configure_logging(log_file, arguments.log_level, "simulator")
        run_simulator(arguments.directory, arguments.proxy_port)
    except SalamanderError as error:
        sys.stderr.write(f"{error.sentence} {error.next_step}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"The directory {arguments.directory} cannot be used: {error.strerror}.\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
