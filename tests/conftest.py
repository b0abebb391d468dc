"""What several kinds of tests share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the simulator, shared by a module; the module's SETTINGS go into its config.toml."""
    settings = getattr(request.module, "SETTINGS", None)
    with Daemon(tmp_path_factory.mktemp("home") / "home", settings) as running:
        yield running


@pytest.fixture
def home_with_daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of one test's own."""
    settings = getattr(request.module, "SETTINGS", None)
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Daemon(tmp_path_factory.mktemp("home") / "home", settings))
