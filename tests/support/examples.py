"""Runs the example of a client, and keeps what it printed and what reached the server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from atlas_grpc import pb
from clients.build import environment

from .front import fronting

if TYPE_CHECKING:
    from clients.build import Client

    from .front import Call

PATIENCE = 240
"""Seconds for a run, which takes two or three on a machine that has nothing else to do."""


@dataclass(kw_only=True)
class Run:
    """What came of a run."""

    address: str
    """Of the server."""
    exit_code: int | None
    """None when it did not end."""
    lines: list[dict[str, Any]]
    errors: str
    calls: list[Call]

    def line(self, step: str) -> dict[str, Any]:
        """The one line of a step."""
        found = [line for line in self.lines if line["step"] == step]
        assert len(found) == 1, (
            f"{len(found)} lines of {step!r}; exit code {self.exit_code}\n{self.lines}\n{self.errors}"
        )
        return found[0]

    def calls_of(self, method: str, **fields: object) -> list[Call]:
        """The calls of a method whose requests have these values, in order."""
        return [
            call
            for call in self.calls
            if call.method == method and all(getattr(call.request, name) == fields[name] for name in fields)
        ]

    def job(self, job_id: str) -> pb.Job:
        """The job as the server has it."""
        with grpc.insecure_channel(self.address) as channel:
            return pb.JobServiceStub(channel).GetJob(pb.GetJobRequest(id=job_id), timeout=10).job

    def transitions(self, job_id: str) -> list[pb.Transition]:
        """All there were of a job that has ended."""
        with grpc.insecure_channel(self.address) as channel:
            messages = pb.JobServiceStub(channel).WatchJob(pb.WatchJobRequest(id=job_id), timeout=10)
            return [step for message in messages for step in message.transitions]


def run(client: Client, address: str, *, trouble: bool) -> Run:
    """Runs the example of a client that is built, against the server or against the trouble before it."""
    return asyncio.run(_run(client, address, trouble=trouble))


async def _run(client: Client, address: str, *, trouble: bool) -> Run:
    async with fronting(address, trouble=trouble) as (front, target):
        process = await asyncio.create_subprocess_exec(
            *client.run,
            target,
            cwd=client.folder,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        talk = asyncio.create_task(process.communicate())
        done, _ = await asyncio.wait([talk], timeout=PATIENCE)
        if not done:
            process.kill()
        out, errors = await talk
    return Run(
        address=address,
        exit_code=process.returncode if done else None,
        lines=[json.loads(line) for line in out.decode().splitlines()],
        errors=errors.decode(),
        calls=front.calls,
    )
