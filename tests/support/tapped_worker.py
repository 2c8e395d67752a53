"""`atlas worker` that writes down what it was answered: a program, with the same options.

A line for each result handed in, its job, its fence and whether it was accepted, goes to the file `ATLAS_TEST_ANSWERS`.
With `ATLAS_TEST_RUDE` the worker does not stop when its jobs are lost: it executes them to their end, and says so.
It waits for a line on its standard input first, when `ATLAS_TEST_SPARE` is set: a start takes a second otherwise.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import atlas_grpc.remote.main  # noqa: F401 - all of a start but its last step
from atlas_grpc.cli import main
from atlas_grpc.model import Succeeded
from atlas_grpc.remote.source import RemoteSource
from atlas_grpc.worker import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atlas_grpc.model import Report


def write_answers(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    finish = RemoteSource.finish

    async def tapped(self: RemoteSource, reports: Sequence[Report]) -> list[bool]:
        answers = await finish(self, reports)
        for report, accepted in zip(reports, answers, strict=True):
            if isinstance(report.outcome, Succeeded):
                answer = "accepted" if accepted else "lost"
                os.write(file, f"{report.job_id} {report.fence} {answer}\n".encode())
        return answers

    RemoteSource.finish = tapped  # type: ignore[method-assign]


def be_rude() -> None:
    on_stop = Runner._on_stop

    def heeds_cancellations_only(self: Runner, job_id: str, fence: int, why: str) -> None:
        if why != "lost":
            on_stop(self, job_id, fence, why)

    Runner._on_stop = heeds_cancellations_only  # type: ignore[method-assign]


if __name__ == "__main__":
    if "ATLAS_TEST_ANSWERS" in os.environ:
        write_answers(os.environ["ATLAS_TEST_ANSWERS"])
    if "ATLAS_TEST_RUDE" in os.environ:
        be_rude()
    if "ATLAS_TEST_SPARE" in os.environ and not sys.stdin.readline():
        sys.exit()
    main()
