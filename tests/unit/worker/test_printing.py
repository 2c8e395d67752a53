"""What children and their programs print, as the log of the attempt that printed it; and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from atlas_grpc.model import Failed, Severity, Succeeded
from atlas_grpc.worker.capture import Capture
from atlas_grpc.worker.output import MAX_LINE, MAX_LINES, Output
from tests.support.processes import alive
from tests.unit.worker import handlers
from tests.unit.worker.memory_source import running
from tests.unit.worker.test_processes import gone, value

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing finds what left its group")


def texts(source, job):
    return [line.message for line in source.logs(job)]


async def pid_said(source, job):
    """The number in the line that the job logged of it."""

    def found():
        return [int(text.removeprefix("pid ")) for text in texts(source, job) if text.startswith("pid ")]

    await source.until(found)
    return found()[0]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def printed(how, **more):
    """The log of a job that prints so, and its outcome."""
    async with running(handlers.prints, processes=1) as (source, _):
        job = source.add("prints", {"how": how, **more}, attempt=2)
        outcome = await source.outcome(job)
        lines = source.logs(job)
    assert {line.attempt for line in lines} <= {2}
    return lines, outcome


async def test_stdout_is_info_and_stderr_is_a_warning_whoever_prints():
    lines, _ = await printed("both")
    for severity, said in (
        (Severity.INFO, ["to stdout", "by a program"]),
        (Severity.WARNING, ["to stderr", "its stderr"]),
    ):
        assert [line.message for line in lines if line.severity is severity] == said


async def test_a_line_is_seen_at_once_and_though_its_process_is_killed():
    async with running(handlers.prints, processes=1) as (source, _):
        job = source.add("prints")
        await source.said(job, "printed")
        source.stop(job, "lost")


async def test_lines_of_every_kind():
    lines, _ = await printed("odd")
    assert [line.message for line in lines] == ["\ufffd\ufffd bad", "", "nul \ufffd and ü", "100%"]
    lines, _ = await printed("unended")
    assert [line.message for line in lines] == ["no end"]
    lines, _ = await printed("c")
    assert [line.message for line in lines] == ["by a library"]


async def test_a_long_line_is_several_and_nothing_is_lost():
    lines, _ = await printed("long", times=100_000)
    assert all(len(line.message.encode()) <= MAX_LINE for line in lines)
    assert len(lines) == -(-300_000 // (MAX_LINE // 3 * 3))
    assert "".join(line.message for line in lines) == "\N{EURO SIGN}" * 100_000


async def test_a_flood_waits_for_the_sender_and_nothing_is_lost():
    async with running(handlers.prints, processes=1) as (source, _):
        job = source.add("prints", {"how": "many", "times": 30_000})
        await source.outcome(job)
        assert texts(source, job) == [f"line {n}" for n in range(30_000)]
        sizes = [len(update.logs) for update in source.updates]
        assert max(sizes) <= MAX_LINES


async def test_a_sender_that_is_held_up_holds_up_who_prints():
    async with running(handlers.prints, processes=1) as (source, runner):
        gate = asyncio.Event()
        update, waiting = source.update, []

        async def held(updates):
            waiting.append(updates)
            await gate.wait()
            return await update(updates)

        source.update = held
        job = source.add("prints", {"how": "many", "times": 40_000})
        await source.until(lambda: waiting)
        await source.until(lambda: runner._active and next(iter(runner._active.values())).output.full)
        (execution,) = runner._active.values()
        assert len(execution.output._logs) < 4 * MAX_LINES, "the rest waits in the pipe and in the program"
        gate.set()
        await source.outcome(job)
        assert len(texts(source, job)) == 40_000


async def test_the_last_words_of_a_process_that_dies():
    lines, outcome = await printed("dies")
    assert [line.message for line in lines] == ["last words", "and half a l"]
    assert isinstance(outcome, Failed)


async def test_an_attempt_ends_with_all_that_was_printed_before():
    capture, outputs = Capture(), [Output(1, print), Output(2, print)]
    stdout, _ = capture.open()
    writer = os.dup(stdout)
    capture.started()
    for number, output in enumerate(outputs):
        capture.begin(output)
        os.write(writer, b"%d\nand a rest of %d" % (number, number))
        capture.end()
    capture.close()
    os.close(writer)
    assert [[line.message for line in output.take()[1]] for output in outputs] == [
        ["0", "and a rest of 0"],
        ["1", "and a rest of 1"],
    ]


async def test_each_attempt_has_its_own_lines():
    async with running(handlers.prints, processes=1) as (source, runner):
        jobs = []
        for n in range(5):
            jobs.append(source.add("prints", {"how": "many", "times": n}))
            await source.outcome(jobs[-1])
        assert [texts(source, job) for job in jobs] == [[f"line {n}" for n in range(times)] for times in range(5)]
        assert len(runner._children.pids) == 1


async def test_python_logging_goes_to_the_log_of_the_job():
    async with running(handlers.logs, processes=1) as (source, _):
        job = source.add("logs")
        await source.outcome(job)
        by_text = {line.message: line.severity for line in source.logs(job)}
    assert by_text["one of 3"] is Severity.DEBUG
    assert by_text["two"] is Severity.WARNING
    assert by_text["by atlas.job.pool.connection"] is Severity.INFO
    assert by_text["not set up"] is Severity.WARNING
    (raised,) = [text for text in by_text if text.startswith("it raised")]
    assert "ValueError: three" in raised
    assert by_text[raised] is Severity.ERROR


@on_linux
@pytest.mark.parametrize("how", ["plain", "daemon", "daemon bare silent"])
async def test_what_a_job_leaves_running_ends_with_it_and_says_nothing_in_the_next_one(how):
    async with running(handlers.leaves, handlers.quiet, processes=1) as (source, runner):
        job = source.add("leaves", {"how": how})
        assert isinstance(await source.outcome(job), Succeeded)
        pid = await pid_said(source, job)
        assert not alive(pid), "it is gone when the outcome is known"
        after = source.add("quiet")
        assert [value(await source.outcome(after))] == runner._children.pids, "the process is kept"
        assert texts(source, after) == []


@on_linux
@pytest.mark.parametrize("how", ["plain silent stays", "daemon stays", "daemon silent stays"])
async def test_what_a_process_that_dies_leaves_running_ends_with_it(how):
    async with running(handlers.leaves, processes=1) as (source, runner):
        job = source.add("leaves", {"how": how})
        pid = await pid_said(source, job)
        (process,) = runner._children.pids
        os.kill(process, signal.SIGKILL)
        failed = await source.outcome(job)
        assert failed.failure.reason == "PROCESS_DIED"
        assert not alive(pid)


@on_linux
@pytest.mark.parametrize("how", ["plain silent stays", "daemon stays", "daemon bare silent stays"])
async def test_a_kill_takes_daemons_too(how):
    async with running(handlers.leaves, processes=1) as (source, runner):
        job = source.add("leaves", {"how": how})
        pid = await pid_said(source, job)
        assert alive(pid)
        source.stop(job, "lost")
        await source.until(lambda: not runner._children.pids)
        await gone(pid)


@on_linux
async def test_a_process_with_something_left_that_cannot_be_ended_is_not_used_again():
    async with running(handlers.stuck, handlers.quiet, processes=1) as (source, runner):
        pid = value(await source.outcome(source.add("stuck")))
        assert value(await source.outcome(source.add("quiet"))) != pid
        await source.until(lambda: pid not in runner._children.pids)


@pytest.mark.parametrize("count", [1, 3])
async def test_children_leave_no_descriptors(count):
    async with running(handlers.prints, processes=count) as (source, runner):
        before = descriptors()
        for job in [source.add("prints", {"how": "dies"}) for _ in range(2 * count)]:
            await source.outcome(job)
        waiting = [source.add("prints") for _ in range(count)]
        await source.started(*waiting)
        for job in waiting:
            await source.said(job, "printed")
            source.stop(job, "lost")
        await source.until(lambda: not runner._children.pids)
        assert descriptors() <= before
