"""The pages that tell people what to type: README.md and docs/*.md, their blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: its first word.
        line: where it begins.
        not_run: why the tests do not run it; empty: they do.
        phone: it needs a phone that scans; in the tests, a simulated one does.
    """

    language: str
    text: str
    line: int
    not_run: str
    phone: bool

    @property
    def commands(self) -> list[str]:
        """What is to be typed: all of a shell's lines; in a console those behind the prompt, with what is indented."""
        if self.language == "sh":
            return [self.text]
        found: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif line.startswith(" ") and found:
                found[-1] += "\n" + line
        return found


def pages() -> list[str]:
    """Return every page, as a path from the repository's root."""
    return ["README.md", *(f"docs/{each.name}" for each in sorted((PROJECT / "docs").glob("*.md")))]


def text_of(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def blocks_of(text: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(text):
        language, options, content = match.groups()
        reason = re.search(r'not-run="([^"]+)"', options)
        words = re.sub(r'not-run="[^"]+"', "", options).split()
        assert set(words) <= {"phone"}, f"unknown words behind a block's language: {words}"
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language, content, line, reason.group(1) if reason else "", "phone" in words))
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of every `run.py …` that a page shows, in its text and in its blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`(run\.py [^`]+)`", prose)
    for block in blocks_of(text):
        if block.language in {"console", "sh"}:
            for command in block.commands:
                # As far as the pipe, the redirection or the next command; $(…) is one of its own.
                spans += re.findall(r"(?:^|[\s(])(run\.py [a-z-][^|<>&;)\n]*)", command)
    for span in spans:
        words = shlex.split(span)
        if words[1] != "COMMAND":
            yield words[1:]
