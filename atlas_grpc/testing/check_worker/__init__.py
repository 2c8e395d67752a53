"""The conformance suite of workers: starts a real server, starts the worker by its command, and judges it from outside.

    python -m atlas_grpc.testing.check_worker --cmd './my-worker --server {server}'

docs/workers.md tells which job types the worker has to execute, and what each check is for. From a program:

    from atlas_grpc.testing.check_worker import CHECKS, check_worker

    result = await check_worker("takes_jobs", "./my-worker --server {server}")

Each check has a server of its own, in this process, behind a TCP proxy that can cut connections and hold bytes back;
and a worker process of its own. What it judges by is what the server says of the jobs, and the lines that `check.tick`
leaves in a file: both can be had from a worker in any language.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from . import _daily, _faults, _shutdown  # noqa: F401 - they register
from ._kit import CHECKS, CLAIMS, Broken, Check
from ._world import a_world

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CHECKS", "CLAIMS", "PATIENCE", "Check", "Result", "check_worker"]

PATIENCE = 20.0
"""Seconds that a worker has for what it should do at once, on a busy machine."""
LONGEST = 90.0
"""Seconds that a check may take."""
_SHOWN_LINES = 12


class Result(NamedTuple):
    """How a check went."""

    name: str
    status: Literal["PASS", "FAIL", "SKIPPED"]
    detail: str
    """What is wrong, or why it was skipped."""
    output: str
    """The last lines that the worker wrote, when it failed."""


async def check_worker(name: str, command: str, *, without: Iterable[str] = (), patience: float = PATIENCE) -> Result:
    """Runs one check of `CHECKS` on a worker. `without` are claims of `CLAIMS` that the worker does not make,
    `patience` the seconds that it has for what it should do at once.

    `command` is split as a shell does and not given to one; in it `{server}` becomes the server's host:port, `{http}`
    its http://host:port. Raises KeyError for an unknown name, OSError when the command cannot be started.
    """
    check = CHECKS[name]
    if check.claim in set(without):
        return Result(name, "SKIPPED", f"not claimed: {check.claim}", "")
    with tempfile.TemporaryDirectory(prefix="atlas-check-") as folder:
        async with a_world(command, Path(folder), patience, **check.settings) as world:
            try:
                async with asyncio.timeout(LONGEST):
                    await world.announced()
                    await check.run(world)
            except Broken as broken:
                detail = str(broken)
            except TimeoutError:
                detail = f"not done after {LONGEST:.0f} s"
            else:
                return Result(name, "PASS", "", "")
            return Result(name, "FAIL", detail, world.worker.output(_SHOWN_LINES))
