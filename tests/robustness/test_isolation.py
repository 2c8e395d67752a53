"""Handlers in processes, as users see them: what they print is in the job's log, what they leave is gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.client import Client, JobState, Logged, LogsDropped
from atlas_grpc.testing import serving
from tests.robustness.test_worker import a_worker
from tests.support.processes import alive

if TYPE_CHECKING:
    from atlas_grpc.client import JobHandle

HANDLERS = str(Path(__file__).with_name("isolation_handlers.py"))


async def log_of(job: JobHandle, **wanted: Any) -> list[Logged]:
    events = [event async for event in job.logs(**wanted)]
    assert not any(isinstance(event, LogsDropped) for event in events)
    return [event for event in events if isinstance(event, Logged)]


def check_printed(log: list[Logged], lines: int) -> None:
    by_severity = {
        severity: [line.message for line in log if line.severity == severity] for severity in ("INFO", "WARNING")
    }
    assert by_severity == {
        "INFO": [f"line {n}" for n in range(lines)] + ["by a program"],
        "WARNING": ["to stderr"],
    }
    assert [line.offset for line in log] == list(range(lines + 2))


async def test_what_is_printed_is_in_the_log(every_store: str) -> None:
    async with serving(HANDLERS, grace=0, max_log_lines=5000) as server, Client(server.grpc_address) as client:
        check_printed(await log_of(await client.run("prints", {"lines": 3000})), 3000)
        check_printed(await log_of(await client.run("prints", {"lines": 0})), 0)


async def test_what_is_printed_by_a_worker_elsewhere_is_in_the_log() -> None:
    async with (
        serving(HANDLERS, worker=False, grace=0, max_log_lines=6000) as server,
        a_worker(server.grpc_address, HANDLERS),
        Client(server.grpc_address) as client,
    ):
        check_printed(await log_of(await client.run("prints", {"lines": 5000})), 5000)


async def test_printing_is_followed_live_and_cancelled() -> None:
    async with serving(HANDLERS, grace=0) as server, Client(server.grpc_address) as client:
        job = await client.submit("ticks")
        async with job.logs(follow=True) as events:
            assert [getattr(await anext(events), "message", None) for _ in range(3)] == ["tick 0", "tick 1", "tick 2"]
            await job.cancel()
            rest = [event async for event in events]
        assert len(await log_of(job)) == 3 + len(rest)
        assert (await job.refresh()).state is JobState.CANCELLED


async def test_the_quota_keeps_the_last_words() -> None:
    async with serving(HANDLERS, grace=0, max_log_lines=100) as server, Client(server.grpc_address) as client:
        job = await client.run("prints", {"lines": 5000})
        first, *rest = [event async for event in job.logs()]
        assert isinstance(first, LogsDropped)
        assert first.count == 5002 - len(rest)
        assert 0 < len(rest) <= 100
        assert "by a program" in [event.message for event in rest if isinstance(event, Logged)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="nothing finds daemons there")
async def test_each_attempt_of_a_job_that_crashes_takes_its_daemon_along() -> None:
    async with serving(HANDLERS, grace=0) as server, Client(server.grpc_address) as client:
        job = await (await client.submit("crashes")).wait()
        assert (job.state, job.error and job.error.reason) == (JobState.FAILED, "PROCESS_DIED")
        for attempt in (1, 2):
            lines = [line.message for line in await log_of(job, attempt=attempt)]
            assert f"attempt {attempt}" in lines
            (pid,) = [int(line.split()[1]) for line in lines if line.startswith("daemon ")]
            assert not alive(pid)
