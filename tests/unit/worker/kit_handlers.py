"""Handlers, middleware, dependencies and lifespans that processes find again, for tests of the worker."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainSerializer

from atlas_grpc.errors import FailNow, GiveBack, RetryIn
from atlas_grpc.worker import Depends, JobContext, handler, lifespan, middleware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atlas_grpc.worker import CallNext


def note(line: str) -> None:
    """Writes a line that tests read, from whatever process."""
    with Path(os.environ["KIT_NOTES"]).open("a") as file:
        file.write(f"{line}\n")


@lifespan
def database() -> Iterator[dict[str, Any]]:
    note(f"enter {os.getpid()}")
    yield {"database": f"database of {os.getpid()}"}
    note(f"leave {os.getpid()}")


@lifespan(where="process")
def model() -> Iterator[dict[str, Any]]:
    if os.environ.get("KIT_FAILS") == "model":
        raise ConnectionError("no model")
    note(f"load {os.getpid()}")
    yield {"model": os.getpid()}
    note(f"unload {os.getpid()}")


@dataclass
class Session:
    database: str
    job: str


def get_session(ctx: JobContext) -> Iterator[Session]:
    note(f"open {ctx.id}")
    try:
        yield Session(ctx.state["database"], ctx.id)
    except BaseException as exc:
        note(f"rollback {ctx.id} {type(exc).__name__}")
        raise
    else:
        note(f"commit {ctx.id}")


@dataclass
class Times:
    at: datetime


@handler(executor="process")
def calculates(number: int, session: Annotated[Session, Depends(get_session)], *, ctx: JobContext) -> dict[str, Any]:
    if number < 0:
        raise ValueError("negative")
    return {
        "twice": number * 2,
        "pid": os.getpid(),
        "database": session.database,
        "state": sorted(ctx.state),
        "job": session.job,
    }


@handler(executor="process")
def raises_in_process(how: str) -> None:
    match how:
        case "fail":
            raise FailNow("never", reason="NO_USE")
        case "retry":
            raise RetryIn(1.5, "later")
        case "back":
            raise GiveBack(2)
        case "value":
            raise ValueError("wrong")
        case "die":
            os._exit(7)


@handler(executor="process")
def times() -> Times:
    return Times(datetime(2024, 1, 2, tzinfo=UTC))


@handler(executor="process")
def doubled(number: int) -> Annotated[int, PlainSerializer(lambda value: value * 2)]:
    return number


@handler(executor="process")
def stubborn(*, ctx: JobContext) -> None:
    ctx.info(f"pid {os.getpid()}")
    while True:
        time.sleep(60)


@handler(executor="process")
def hangs_at_first() -> str:
    first = not Path(os.environ["KIT_NOTES"]).read_text()
    note("begun")
    while first:
        time.sleep(60)
    return "done"


@handler(executor="process")
def until_told(*, ctx: JobContext) -> str:
    note("begun")
    while "go" not in Path(os.environ["KIT_NOTES"]).read_text():
        ctx.wait_cancelled(0.01)
        ctx.raise_if_cancelled()
    return "done"


@middleware(types=["calculates"])
async def telling(ctx: JobContext, call_next: CallNext) -> Any:
    ctx.info("before")
    result = await call_next()
    ctx.info("after")
    return result
