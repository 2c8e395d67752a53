"""Limits of memory and processor time, in real processes."""

from __future__ import annotations

import asyncio
import resource
import sys

import pytest

from atlas_grpc.errors import Code
from atlas_grpc.model import Failed
from tests.unit.worker import handlers
from tests.unit.worker.memory_source import running
from tests.unit.worker.test_processes import value

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds memory so on Linux only")


PATIENCE = 60.0
"""Seconds: processor time comes slowly where many want it."""


async def outcome(source, job):
    async with asyncio.timeout(PATIENCE):
        while job not in source.outcomes:  # noqa: ASYNC110 - as `MemorySource.until` does
            await asyncio.sleep(0.005)
    return source.outcomes[job]


def text_of(failed, reason):
    assert isinstance(failed, Failed), failed
    assert (failed.failure.reason, failed.retryable) == (reason, True)
    return failed.failure.message


@on_linux
@pytest.mark.parametrize("how", ["", "pieces", "mapped"])
async def test_who_needs_more_memory_than_its_limit_fails_and_its_process_is_not_used_again(how):
    async with running(handlers.eats, processes=1) as (source, runner):
        pid = value(await outcome(source, source.add("eats", {"mib": 32, "how": how})))
        failed = await outcome(source, source.add("eats", {"mib": 200, "how": how}))
        assert text_of(failed, "MEMORY_LIMIT") == "the handler needed more than its memory limit of 64MiB"
        assert failed.failure.code == Code.RESOURCE_EXHAUSTED
        assert value(await outcome(source, source.add("eats", {"mib": 32, "how": how}))) != pid
        assert runner.busy == 0


@on_linux
async def test_the_limit_is_what_the_attempt_uses_and_goes_with_it():
    async with running(handlers.eats, handlers.eats_freely, handlers.soft_limits, processes=1) as (source, _):
        before = value(await outcome(source, source.add("soft_limits")))
        assert before == [resource.getrlimit(which)[0] for which in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)] + [0]
        pid = value(await outcome(source, source.add("eats_freely", {"mib": 300})))
        for _ in range(3):
            assert value(await outcome(source, source.add("eats", {"mib": 48}))) == pid
        assert value(await outcome(source, source.add("eats", {"mib": 200, "how": "caught"}))) == pid
        assert value(await outcome(source, source.add("eats", {"mib": 9000, "how": "reserved"}))) == pid
        assert value(await outcome(source, source.add("eats_freely", {"mib": 300}))) == pid
        assert value(await outcome(source, source.add("soft_limits"))) == before


@on_linux
async def test_programs_have_the_limit_too():
    async with running(handlers.eats, processes=1) as (source, _):
        assert value(await outcome(source, source.add("eats", {"mib": 16, "how": "program"}))) == 0
        job = source.add("eats", {"mib": 900, "how": "program"})
        assert value(await outcome(source, job)) == 1
        assert "MemoryError" in [line.message for line in source.logs(job)]


@on_linux
async def test_a_crash_for_want_of_memory_names_the_limit():
    async with running(handlers.eats, processes=1) as (source, _):
        failed = await outcome(source, source.add("eats", {"mib": 200, "how": "aborts"}))
        told = text_of(failed, "PROCESS_DIED")
        assert told == "the process of the handler ended with SIGABRT; its memory limit is 64MiB"


async def test_who_uses_more_processor_time_than_its_limit_is_ended():
    async with running(handlers.burns, processes=1) as (source, _):
        pids = {value(await outcome(source, source.add("burns", {"seconds": 0.7}))) for _ in range(4)}
        assert len(pids) == 1, "each attempt has the whole time"
        job = source.add("burns", {"seconds": 60})
        failed = await outcome(source, job)
        assert text_of(failed, "CPU_LIMIT") == "the handler used more than its limit of 1s of processor time"
        assert failed.failure.code == Code.RESOURCE_EXHAUSTED
        assert [line.message for line in source.logs(job)] == ["begun"]
        assert value(await outcome(source, source.add("burns", {"seconds": 0}))) not in pids


async def test_a_loop_in_c_and_a_program_have_the_limit_too():
    async with running(handlers.burns, processes=2) as (source, _):
        in_c, program = (
            source.add("burns", {"seconds": 0, "how": "c"}),
            source.add("burns", {"seconds": 60, "how": "program"}),
        )
        text_of(await outcome(source, in_c), "CPU_LIMIT")
        assert value(await outcome(source, program)) == -24


@on_linux
async def test_neighbours_notice_nothing():
    async with running(handlers.eats, handlers.burns, handlers.obedient, processes=3) as (source, runner):
        neighbour = source.add("obedient")
        await source.said(neighbour, "begun")
        hungry = [source.add("eats", {"mib": 500}) for _ in range(4)]
        greedy = source.add("burns", {"seconds": 60})
        for job in hungry:
            text_of(await outcome(source, job), "MEMORY_LIMIT")
        text_of(await outcome(source, greedy), "CPU_LIMIT")
        assert neighbour not in source.outcomes
        source.stop(neighbour)
        await outcome(source, neighbour)
        assert runner.busy == 0
