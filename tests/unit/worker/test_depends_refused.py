"""Dependencies that are found wrong when their handler is registered."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

from typing import Annotated

import pytest

from atlas_grpc.worker import Depends, JobContext, Registry, handler
from atlas_grpc.worker.problems import InvalidHandler
from tests.unit.worker import kit_handlers


async def an_async_one():
    yield 1


def needs(dependency):
    def made(a: Annotated[object, Depends(dependency)]):
        return a

    return made


def refused(fn, **options):
    with pytest.raises(InvalidHandler) as caught:
        Registry(**options).add(handler(fn))
    return str(caught.value)


def test_an_asynchronous_one_needs_a_coroutine():
    def plain(a: Annotated[int, Depends(an_async_one)]): ...

    def below(a: Annotated[int, Depends(needs(an_async_one))]): ...

    for fn in (plain, below):
        assert "dependency an_async_one is asynchronous" in refused(fn)


def test_a_cycle_is_found():
    async def first(a): ...

    def second(a: Annotated[int, Depends(first)]): ...

    first.__annotations__["a"] = Annotated[int, Depends(second)]

    async def fn(a: Annotated[int, Depends(second)]): ...

    said = refused(fn)
    assert "form a cycle: test_a_cycle_is_found.<locals>.second → test_a_cycle_is_found.<locals>.first →" in said


def test_a_parameter_that_nobody_gives_is_found():
    def unknown(url: str): ...

    def positional(ctx: JobContext, /): ...

    def fine(*args, url: str = "x", **kwargs): ...

    def hidden(a: Annotated[int, Depends(fine)], /): ...

    def bare(a: int = Depends(fine)): ...

    def not_callable(a: Annotated[int, Depends(3)]): ...

    def unreadable(a: "Nowhere"): ...  # noqa: F821

    class Unhashable:
        __hash__ = None

        def __call__(self): ...

    def with_one(dependency):
        async def fn(a: Annotated[int, Depends(dependency)]): ...

        return fn

    assert "parameter 'url' of dependency" in refused(with_one(unknown))
    assert "must not be positional-only" in refused(with_one(positional))
    assert "must not be positional-only" in refused(hidden)
    assert "write Annotated" in refused(bare)
    assert "cannot be called" in refused(not_callable)
    assert "annotations of" in refused(with_one(unreadable))
    assert "must be hashable" in refused(with_one(Unhashable()))
    assert "are unknown" in refused(with_one(dict))
    Registry().add(handler(with_one(fine)))


def original():
    raise AssertionError("the real one")


def test_what_stands_in_must_fit():
    def plain(a: Annotated[int, Depends(original)]): ...

    assert "is asynchronous" in refused(plain, overrides={original: an_async_one})


def test_nothing_stands_in_where_it_would_not_be_seen():
    with pytest.raises(InvalidHandler, match="no override of get_session reaches its process"):
        Registry(overrides={kit_handlers.get_session: original}).add(kit_handlers.calculates)
