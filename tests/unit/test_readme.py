"""The pages are checked against the code: settings, commands, states and the example cannot drift away unnoticed."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr

import run
from actors.fleet import Fleet
from config import errors
from config.errors import DaemonNotRunning, SalamanderError
from config.settings import Settings
from storage.outbox import FINAL_STATES
from supervisors.policy import POLICIES
from tests.support.pages import blocks_of, commands_of, pages, text_of

_PROJECT = Path(__file__).parents[2]
_README, _SETTINGS, _COMMANDS = (text_of(page) for page in ("README.md", "docs/settings.md", "docs/commands.md"))
#: A row of the settings table: its name and its default.
_SETTING = re.compile(r"^\| `([a-z_]+)` \| (–|`[^`]*`) \| [^|]+ \|$", re.MULTILINE)


def _section(page: str, title: str) -> str:
    """Return the text below a heading, up to the next one of its level."""
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _shown(default: Any) -> str:
    """Return a default as the table shows it."""
    if default is None or default in ("", ()):
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{', '.join(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _settings_told() -> dict[str, str]:
    return dict(_SETTING.findall(_SETTINGS))


def _commands_told(page: str) -> Iterator[list[str]]:
    """Yield the words of every `run.py …` that a page shows, from the command on."""
    for words in commands_of(text_of(page)):
        yield words[2:] if words[0] == "--home" else words


def _find(words: list[str]) -> tuple[list[str], Any]:
    """Return the path to the command that ``words`` call, and the command."""
    command: Any = typer.main.get_command(run.app)
    path = []
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"a page shows the unknown command {' '.join(words)!r}"
        path.append(word)
        command = command.commands[word]
    assert not hasattr(command, "commands"), f"{' '.join(words)!r} names a group of commands"
    return path, command


def _every_command(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from _every_command(below, (*path, name))
        else:
            yield (*path, name)


def test_the_settings_page_tells_every_setting_with_its_default() -> None:
    defaults = {name: _shown(field.default) for name, field in Settings.model_fields.items()}

    assert _settings_told() == defaults


def test_the_settings_table_holds_no_secret_default() -> None:
    assert not any(isinstance(field.default, SecretStr) for field in Settings.model_fields.values())


def test_the_commands_page_shows_every_command() -> None:
    told = {tuple(_find(words)[0]) for words in _commands_told("docs/commands.md")}

    assert set(_every_command(typer.main.get_command(run.app))) - told == set()


@pytest.mark.parametrize("page", pages())
def test_a_page_shows_only_commands_and_options_that_exist(page: str) -> None:
    for words in _commands_told(page):
        if words == ["--version"]:
            continue
        _, command = _find(words)
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known | {"-", "--help"}, words


def test_the_options_beside_a_command_in_the_table_exist() -> None:
    for row in re.findall(r"^\| `run\.py ([^`]+)` \| (.+) \|$", _COMMANDS, re.MULTILINE):
        _, command = _find(shlex.split(row[0]))
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert set(re.findall(r"`(--[a-z-]+)", row[1])) <= known, row


def test_the_commands_page_tells_every_exit_code() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SalamanderError)]
    told = {
        int(code)
        for code in re.findall(r"(?:^|; )(\d+) ", _section(_COMMANDS, "Exit codes").strip().replace("\n", " "))
    }

    assert {0, *(kind.exit_code for kind in kinds)} <= told


def test_the_readme_tells_every_state() -> None:
    told = set(re.findall(r"`([a-z_]+)`", _section(_README, "States")))

    assert {*FINAL_STATES, "queued", "sending", "in_doubt"} <= told
    assert {policy.state for policy in POLICIES.values()} <= told


@pytest.mark.parametrize("page", pages())
def test_what_a_page_links_to_exists(page: str) -> None:
    links = [each for each in re.findall(r"\]\(([^)]+)\)", text_of(page)) if not each.startswith(("https:", "http:"))]
    for file, _, heading in (link.partition("#") for link in links):
        target = (_PROJECT / page).parent / file if file else _PROJECT / page
        assert target.exists(), file
        titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, (file, heading)


@pytest.mark.parametrize("page", pages())
def test_what_is_not_run_says_why(page: str) -> None:
    for block in blocks_of(text_of(page)):
        assert block.language in {"console", "sh", "python", "text", "json", "toml", "http", "nginx"}, block
        assert not block.not_run or len(block.not_run.split()) > 1, block


def test_the_readme_names_only_make_targets_that_exist() -> None:
    makefile = (_PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))

    assert set(re.findall(r"(?:`|^    |\$ )make ([a-z]+)", _README, re.MULTILINE)) <= targets


def test_the_python_example_calls_the_client_as_it_is() -> None:
    (example,) = _blocks(_COMMANDS, "python")
    calls = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
    asked = [call for call in calls if isinstance(call.func, ast.Attribute) and _is_named(call.func.value, "fleet")]

    assert asked
    for call in asked:
        assert isinstance(call.func, ast.Attribute)
        signature = inspect.signature(getattr(Fleet, call.func.attr))
        keywords = {each.arg: None for each in call.keywords if each.arg is not None}
        signature.bind(None, *call.args, **keywords)


def test_the_python_example_starts_nothing_when_no_daemon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = _blocks(_COMMANDS, "python")
    home = tmp_path / "home"
    monkeypatch.setenv("SALAMANDER_HOME", str(home))

    exec(compile(example, "commands.md", "exec"), {})  # noqa: S102 - the page's own lines

    assert capsys.readouterr().out.startswith(DaemonNotRunning.code)
    assert not home.exists()


def _is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
