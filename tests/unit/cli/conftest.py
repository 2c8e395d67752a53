"""A scripted server for every test of the command line that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.scripted import Atlas

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def atlas() -> Iterator[Atlas]:
    server = Atlas()
    yield server
    server.stop()
