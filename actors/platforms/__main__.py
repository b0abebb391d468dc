"""Write the page about all platforms: ``python -m actors.platforms [--check]``, from the project's directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from actors.platforms import contracts
from actors.platforms.documentation import page

_PAGE = Path(__file__).parents[2] / "docs" / "platforms.md"


def main() -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m actors.platforms", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the page is out of date")
    wanted = page(contracts())
    if parser.parse_args().check:
        if _PAGE.is_file() and _PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write("docs/platforms.md is out of date: run python -m actors.platforms\n")
        return 1
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
