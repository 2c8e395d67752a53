"""Fixtures of the tests of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.world import a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.engine.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One engine over one memory store, on a clock that obeys."""
    async with a_world() as it:
        yield it
