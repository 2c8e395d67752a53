"""What becomes of a result that passes through middleware: it is made JSON once, before the clean-up."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, computed_field

from atlas_grpc.model import Succeeded
from atlas_grpc.worker import Depends, handler, middleware
from tests.unit.worker import handlers, kit_handlers
from tests.unit.worker.memory_source import running


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


class Session:
    def __init__(self) -> None:
        self.open = True

    def rows(self) -> list[int]:
        if not self.open:
            raise RuntimeError("the session is closed")
        return [1, 2]


def get_session():
    session = Session()
    yield session
    session.open = False


class Lazy(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str

    def __init__(self, session: Session) -> None:
        super().__init__(name="lazy")
        self._session = session

    _session: Session

    @computed_field
    def rows(self) -> list[int]:
        return self._session.rows()


@handler
async def task_map() -> Any:
    return map(str, (1, 2))


@handler
def thread_map() -> Any:
    return map(str, (1, 2))


@handler
async def task_nested() -> Any:
    return {"rows": (n for n in (1, 2))}


@handler
def thread_nested() -> Any:
    return {"rows": (n for n in (1, 2))}


@handler
async def task_lazy(session: Annotated[Session, Depends(get_session)]) -> Lazy:
    return Lazy(session)


@handler
def thread_lazy(session: Annotated[Session, Depends(get_session)]) -> Lazy:
    return Lazy(session)


RETURNED = [
    (task_map, ["1", "2"]),
    (thread_map, ["1", "2"]),
    (task_nested, {"rows": [1, 2]}),
    (thread_nested, {"rows": [1, 2]}),
    (task_lazy, {"name": "lazy", "rows": [1, 2]}),
    (thread_lazy, {"name": "lazy", "rows": [1, 2]}),
]


@middleware
async def passes(ctx, call_next):
    return await call_next()


@pytest.mark.parametrize(("fn", "expected"), RETURNED)
async def test_what_is_passed_on_was_made_json_before_the_clean_up(fn, expected):
    async with running(fn, passes, passes) as (source, _):
        assert value(await source.outcome(source.add(fn.__name__))) == expected


async def test_what_cannot_be_made_json_after_it_was_changed_in_place_is_refused():
    @handler
    async def makes() -> dict[str, object]:
        return {"made": 1}

    @middleware
    async def spoils(ctx, call_next):
        result = await call_next()
        result["spoilt"] = object()
        return result

    async with running(makes, spoils) as (source, _):
        assert (await source.outcome(source.add("makes"))).failure.reason == "RESULT_INVALID"


async def test_what_an_earlier_call_answered_is_not_taken_for_the_last_one():
    calls = []

    @handler
    async def counts() -> list[int]:
        calls.append(1)
        return [len(calls)]

    @middleware
    async def first_of_two(ctx, call_next):
        first = await call_next()
        await call_next()
        return first

    async with running(counts, first_of_two) as (source, _):
        assert value(await source.outcome(source.add("counts"))) == [1]


# Processes


@pytest.mark.parametrize(("returned", "expected"), [(True, b"true"), (1.0, b"1.0"), (1, b"1")])
async def test_an_answer_that_is_equal_to_that_of_a_process_is_the_answer_all_the_same(returned, expected):
    @middleware
    async def answers(ctx, call_next):
        assert await call_next() == 1
        return returned

    async with running(handlers.add, answers, processes=1) as (source, _):
        assert (await source.outcome(source.add("add", {"a": 0}))).result.data == expected


async def test_an_answer_that_cannot_be_compared_is_the_answer():
    class Array(list[int]):
        __hash__ = None

        def __eq__(self, other):
            raise ValueError("the truth value of an array is ambiguous")

    @middleware
    async def answers(ctx, call_next):
        await call_next()
        return Array([1])

    async with running(handlers.add, answers, processes=1) as (source, _):
        assert value(await source.outcome(source.add("add", {"a": 0}))) == [1]


async def test_a_result_of_a_process_may_be_changed_in_place():
    @middleware
    async def changes(ctx, call_next):
        result = await call_next()
        result["more"] = True
        return result

    async with running(kit_handlers.times, changes, processes=1) as (source, _):
        assert value(await source.outcome(source.add("times"))) == {"at": "2024-01-02T00:00:00Z", "more": True}
