"""The overrides of a registry go with its handlers."""

from __future__ import annotations

import json
from typing import Annotated

import pytest

from atlas_grpc.testing import run_handler
from atlas_grpc.worker import Depends, Registry, handler
from atlas_grpc.worker.problems import InvalidHandler
from tests.unit.worker.memory_source import running


def real():
    return "real"


def other():
    return "other"


@handler
def says(what: Annotated[str, Depends(real)], more: Annotated[str, Depends(other)]) -> list[str]:
    return [what, more]


def faked(*things, **fakes):
    """A registry where functions that return those texts stand in."""
    names = {"real": real, "other": other}
    registry = Registry(overrides={names[name]: lambda text=text: text for name, text in fakes.items()})
    registry.include(*things)
    return registry


async def said(registry):
    async with running(registry) as (source, _):
        return json.loads((await source.outcome(source.add("says"))).result.data)


async def test_they_go_with_handlers_that_are_included():
    once = Registry()
    once.include(faked(says, real="fake"))
    twice = Registry()
    twice.include(once)
    assert await said(once) == ["fake", "other"]
    assert await said(twice) == ["fake", "other"]


async def test_those_of_the_registry_that_includes_come_first():
    registry = faked(faked(says, real="inner", other="inner"), real="outer")
    assert await said(registry) == ["outer", "inner"]


async def test_they_do_not_touch_the_handlers_of_the_registry_that_includes():
    @handler
    def mine(what: Annotated[str, Depends(real)]) -> str:
        return what

    registry = Registry()
    registry.include(faked(says, real="fake"), mine)
    async with running(registry) as (source, _):
        assert json.loads((await source.outcome(source.add("mine"))).result.data) == "real"


def test_those_that_come_too_late_are_refused():
    fake = faked(says, real="fake")
    late = Registry()
    late.add(says)
    with pytest.raises(InvalidHandler, match="there already, without the overrides"):
        late.include(fake)
    again = Registry()
    again.include(fake, fake, says)
    assert len(again) == 1


async def test_run_handler_applies_those_of_what_it_includes():
    fake = faked(says, real="fake")
    assert (await run_handler(says, include=[fake])).result == ["fake", "other"]
    run = await run_handler(says, include=[fake], overrides={real: lambda: "mine"})
    assert run.result == ["mine", "other"]
