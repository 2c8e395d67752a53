"""Handlers with middleware, dependencies and lifespans, for a server and for a worker of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from atlas_grpc import Depends, FailNow, JobContext, handler, lifespan, middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atlas_grpc.worker import CallNext

tenant: ContextVar[str] = ContextVar("tenant", default="")


def note(line: str) -> None:
    with Path(os.environ["KIT_NOTES"]).open("a") as file:
        file.write(f"{line}\n")


@lifespan
async def pool() -> AsyncIterator[dict[str, Any]]:
    match os.environ.get("KIT_LIFESPAN"):
        case "fails":
            raise ConnectionError("no database at 127.0.0.1:1")
        case "hangs":
            note("entering")
            await asyncio.Event().wait()
    note("enter pool")
    yield {"pool": "the pool"}
    note("leave pool")


@lifespan
def settings() -> Iterator[dict[str, Any]]:
    yield {"settings": os.getpid()}


def get_session(ctx: JobContext) -> Iterator[str]:
    try:
        yield f"session of {ctx.type} with {ctx.state.get('pool')}"
    except BaseException:
        note(f"rollback {ctx.type}")
        raise
    else:
        note(f"commit {ctx.type}")


Session = Annotated[str, Depends(get_session)]


@middleware(types=["kit.*"])
async def tenants(ctx: JobContext, call_next: CallNext) -> Any:
    tenant.set(ctx.labels.get("tenant", "nobody"))
    began = time.monotonic()
    try:
        return await call_next()
    except KeyError as exc:
        raise FailNow("there is no such thing", reason="NO_SUCH_THING") from exc
    finally:
        ctx.info(f"took {time.monotonic() - began:.3f} s")


@handler(name="kit.task")
async def in_task(session: Session, *, fail: bool = False) -> dict[str, Any]:
    if fail:
        raise KeyError
    return {"session": session, "tenant": tenant.get()}


@handler(name="kit.thread")
def in_thread(session: Session, *, fail: bool = False) -> dict[str, Any]:
    if fail:
        raise KeyError
    return {"session": session, "tenant": tenant.get()}


@handler(name="kit.process", executor="process")
def in_process(session: Session, ctx: JobContext, *, fail: bool = False) -> dict[str, Any]:
    if fail:
        raise FailNow("there is no such thing", reason="NO_SUCH_THING")
    return {"session": session, "own": ctx.state["settings"] == os.getpid(), "grpc": "grpc" in sys.modules}
