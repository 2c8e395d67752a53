"""What all tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.stores import SHARED, Servers, chosen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Several test runs may share two cores: an example that is slow is not wrong. CI draws the same examples each time.
settings.register_profile("atlas", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("atlas")

# A developer's own settings must not reach the servers and clients under test.
for name in [name for name in os.environ if name.startswith("ATLAS_") and not name.startswith("ATLAS_TEST_")]:
    del os.environ[name]


_LONG = ("tests/clients/", *(f"tests/robustness/test_{name}.py" for name in ("check_worker", "storm", "worker_storm")))
"""The files that take the longest: begun first, so that no process that shares the tests is left with one alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


@pytest.fixture(scope="session")
def store_servers() -> Iterator[Servers]:
    """The database servers of the run."""
    servers = Servers()
    yield servers
    servers.close()


def _use(name: str, servers: Servers, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = servers.url(name, folder)
    monkeypatch.setenv("ATLAS_STORE", url)
    return url


@pytest.fixture(params=chosen())
def every_store(
    request: pytest.FixtureRequest, store_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Runs the test on each store, an empty one, which all servers that it starts use. Answers its URL."""
    return _use(request.param, store_servers, tmp_path, monkeypatch)


@pytest.fixture(params=[name for name in chosen() if name in SHARED])
def shared_store(
    request: pytest.FixtureRequest, store_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The same for the stores that several servers can use at a time."""
    return _use(request.param, store_servers, tmp_path, monkeypatch)
