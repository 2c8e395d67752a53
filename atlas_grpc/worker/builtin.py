"""The job types that every server knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from .context import JobContext
from .decorator import handler

_LONGEST = 86_400


@dataclass
class Slept:
    """What `sleep` returns."""

    slept: Annotated[float, Field(description="How long it slept, in seconds.")]


@handler
async def sleep(
    seconds: Annotated[float, Field(ge=0, le=_LONGEST, description="How long; fractions allowed.")], *, ctx: JobContext
) -> Slept:
    """Sleeps for so many seconds, and shows how far it is."""
    step = max(1.0, seconds / 100)
    slept = 0.0
    while seconds - slept > step:
        await ctx.sleep(step)
        slept += step
        ctx.progress(slept, seconds)
    await ctx.sleep(seconds - slept)
    return Slept(slept=seconds)
