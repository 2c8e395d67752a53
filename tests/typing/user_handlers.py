"""Handlers as a user would write them; `mypy --strict` must accept them and see these types."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, assert_type

from atlas_grpc import Depends, JobContext, Registry, handler, lifespan, middleware
from atlas_grpc.testing import FakeContext, HandlerRun, fake_context, run_handler, run_handler_sync, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atlas_grpc.worker import CallNext


class Session:
    def read(self) -> str:
        return ""


def get_session(ctx: JobContext) -> Iterator[Session]:
    yield Session()


@lifespan
async def database() -> AsyncIterator[dict[str, Any]]:
    yield {"database": 1}


@lifespan(where="process")
def model() -> Iterator[None]:
    yield


@lifespan
@asynccontextmanager
async def managed() -> AsyncIterator[None]:
    yield


@middleware
async def timing(ctx: JobContext, call_next: CallNext) -> Any:
    return await call_next()


@middleware(types=["mail.*"])
async def typed(ctx: JobContext, call_next: CallNext) -> str:
    assert_type(await call_next(), Any)
    return ctx.type


@handler(executor="process")
def reads(name: str, session: Annotated[Session, Depends(get_session)], *, ctx: JobContext) -> str:
    return session.read()


registry = Registry(overrides={get_session: Session})
registry.include(reads, timing, database)
registry.middleware(timing)
registry.lifespan(where="worker")(model)


@registry.middleware(types=["reads"])
async def scoped(ctx: JobContext, call_next: CallNext) -> Any:
    return await call_next()


@middleware  # type: ignore[type-var]
def not_a_coroutine(ctx: JobContext, call_next: CallNext) -> int:
    return 1


@lifespan(where="server")  # type: ignore[call-overload, untyped-decorator]
def misplaced() -> Iterator[None]:
    yield


async def tests() -> None:
    assert_type(reads("a", Session(), ctx=fake_context(attempt=2)), str)
    run = await run_handler(reads, {"name": "a"}, overrides={get_session: Session}, include=[timing, "jobs.py"])
    assert_type(run, HandlerRun)
    assert_type(run.retry_in, float | None)
    assert_type(fake_context(), FakeContext)
    assert_type(run_handler_sync(reads).exception, BaseException | None)
    await run_handler(reads, {}, inclued=[])  # type: ignore[call-arg]
    async with serving(reads, timing, overrides={get_session: Session}) as server:
        assert_type(server.grpc_address, str)
