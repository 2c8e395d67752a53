"""Handlers in processes of their own: real children, killed for real."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from atlas_grpc.model import Content, Failed, Released, Stopped, Succeeded, TimedOut
from atlas_grpc.worker import Registry, Runner
from tests.support.processes import alive
from tests.unit.worker import handlers
from tests.unit.worker.memory_source import BOUND, ManualClock, MemorySource, running

ROOT = Path(__file__).parents[3]
ALL = [fn for fn in vars(handlers).values() if hasattr(fn, "__atlas_handler__")]


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def gone(*pids):
    async with asyncio.timeout(BOUND):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.005)


async def pids_said(source, job):
    """The numbers in the first line that the job logged."""
    await source.until(lambda: source.logs(job))
    return [int(word) for word in source.logs(job)[0].message.split()[1:]]


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


async def test_a_warm_child_executes_one_job_after_the_other():
    async with running(*ALL, processes=1) as (source, runner):
        first = value(
            await source.outcome(source.add("about", labels={"a": "b"}, time_left=60_000_000, traceparent="t"))
        )
        assert first["forbidden"] == []
        assert first["main_thread"] is True
        assert first["parent"] == os.getpid()
        assert first["context"] == ["job-1", "default", "about", "default", {"a": "b"}, 1, 3]
        assert (first["fence"], first["traceparent"]) == (1, "t")
        assert 0 < first["left"] <= 60
        assert value(await source.outcome(source.add("add", {"a": 2}))) == 3
        assert value(await source.outcome(source.add("mirror", {"x": 1, "y": 2}))) == {"x": 2, "y": 1}
        data = Content(b"\x00\x01" * 200_000, "application/octet-stream")
        assert (await source.outcome(source.add("blob", data))).result.data == data.data[::-1]
        failed = await source.outcome(source.add("add", {"a": "2"}))
        assert (failed.failure.reason, failed.retryable) == ("INVALID_PAYLOAD", False)
        assert value(await source.outcome(source.add("about")))["pid"] == first["pid"]
        assert runner.busy == 0
    await gone(first["pid"])


async def test_what_a_handler_asks_for_or_raises_comes_over_the_pipe(caplog):
    async with running(handlers.signals, processes=1, max_result_bytes=1_000_000) as (source, _):
        outcomes = {}
        for how in ("give_back", "retry_in", "fail", "value", "nan", "big"):
            outcomes[how] = await source.outcome(source.add("signals", {"how": how}))
    assert outcomes["give_back"] == Released(2_500_000)
    assert (outcomes["retry_in"].retry_in, outcomes["retry_in"].failure.message) == (1_500_000, "later")
    assert (outcomes["fail"].failure.reason, outcomes["fail"].retryable) == ("NO_USE", False)
    assert (outcomes["value"].failure.message, outcomes["value"].retryable) == ("ValueError: wrong", True)
    assert outcomes["nan"].failure.reason == "RESULT_INVALID"
    assert outcomes["big"].failure.reason == "RESULT_TOO_LARGE"
    assert "in signals" in caplog.text


async def test_results_are_admitted_in_the_parent():
    async with running(handlers.add, admit=lambda _content: "not today") as (source, _):
        failed = await source.outcome(source.add("add", {"a": 1}))
        assert (failed.failure.reason, failed.retryable) == ("RESULT_INVALID", False)


async def test_progress_and_logs_of_a_child():
    async with running(handlers.talkative, processes=1) as (source, _):
        for _ in range(2):
            job = source.add("talkative", {"lines": 900}, attempt=2)
            await source.outcome(job)
            assert [line.message for line in source.logs(job)] == [f"line {n}" for n in range(900)]
            assert {line.attempt for line in source.logs(job)} == {2}
            assert source.progress(job)[-1].current == 900


async def test_a_child_that_dies_costs_one_attempt():
    endings = {
        "sys.exit": ("SYSTEM_EXIT", "SystemExit: 3"),
        "SIGKILL": (
            "PROCESS_DIED",
            "the process of the handler ended with SIGKILL, as the kernel does when memory runs out",
        ),
        "SIGSEGV": ("PROCESS_DIED", "the process of the handler ended with SIGSEGV"),
        "exit": ("PROCESS_DIED", "the process of the handler ended with exit status 7"),
    }
    async with running(handlers.die, handlers.add, processes=1) as (source, runner):
        for how, told in endings.items():
            failed = await source.outcome(source.add("die", {"how": how}))
            assert isinstance(failed, Failed)
            assert (failed.failure.reason, failed.failure.message) == told
            assert failed.retryable
        assert value(await source.outcome(source.add("add", {"a": 1}))) == 2
        assert runner.busy == 0


async def test_an_idle_child_that_dies_costs_nothing():
    async with running(handlers.about, processes=1) as (source, runner):
        pid = value(await source.outcome(source.add("about")))["pid"]
        os.kill(pid, signal.SIGKILL)
        await source.until(lambda: pid not in runner._children.pids)
        assert value(await source.outcome(source.add("about")))["pid"] != pid


async def test_a_copy_that_a_handler_forks_has_no_say():
    async with running(handlers.forks, processes=1) as (source, _):
        for _ in range(2):
            assert value(await source.outcome(source.add("forks"))) == "the original saw 1"


async def test_a_signal_to_every_process_of_the_service_ends_no_attempt():
    async with running(handlers.obedient, handlers.parent_of, processes=2) as (source, runner):
        job, other = source.add("obedient"), source.add("parent_of")
        await source.said(job, "begun")
        _, program = await pids_said(source, other)
        for pid in runner._children.pids:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        os.kill(program, signal.SIGTERM)  # what a handler starts is not shielded
        assert isinstance(await source.outcome(other), Succeeded)
        assert job not in source.outcomes
        source.stop(job)
        assert await source.outcome(job) == Stopped()


async def test_a_signal_to_a_child_that_starts_ends_no_attempt(monkeypatch):
    popen = subprocess.Popen

    def signalled(*args, **options):
        program = popen(*args, **options)
        for number in (signal.SIGTERM, signal.SIGINT):  # long before its interpreter runs a line of ours
            program.send_signal(number)
        return program

    monkeypatch.setattr(subprocess, "Popen", signalled)
    async with running(handlers.signals_blocked, processes=1) as (source, _):
        assert value(await source.outcome(source.add("signals_blocked"))) == [[], "00000000"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGINT}


async def test_a_child_that_breaks_between_jobs_ends_in_spite_of_threads_left_behind():
    async with running(handlers.leaves_traps, handlers.add, processes=1) as (source, runner):
        pid = value(await source.outcome(source.add("leaves_traps")))
        os.kill(pid, signal.SIGUSR1)
        await source.until(lambda: pid not in runner._children.pids)
        assert value(await source.outcome(source.add("add", {"a": 1}))) == 2


async def test_a_child_whose_end_somebody_else_collected_is_missed(monkeypatch):
    def gone_already(*_args):
        raise ChildProcessError

    async with running(handlers.die, processes=1) as (source, runner):
        wait = os.waitid
        monkeypatch.setattr(os, "waitid", lambda *args: (wait(*args), os.waitpid(args[1], 0), gone_already()))
        failed = await source.outcome(source.add("die", {"how": "SIGKILL"}))
        assert failed.failure.reason == "PROCESS_DIED"
        assert runner.busy == 0


async def test_a_child_that_dies_while_there_are_no_file_descriptors_is_missed(monkeypatch, caplog):
    def exhausted():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("atlas_grpc.worker.tree._all", exhausted)
    async with running(handlers.die, processes=1) as (source, runner):
        failed = await source.outcome(source.add("die", {"how": "SIGKILL"}))
        assert failed.failure.reason == "PROCESS_DIED"
        await source.until(lambda: runner.busy == 0)
    assert "left behind cannot be looked for: Too many open files" in caplog.text


async def test_a_child_that_cannot_be_waited_for_is_not_left(monkeypatch, caplog):
    monkeypatch.setattr("atlas_grpc.worker.processes.Thread", NoThread)
    before = children()
    async with running(handlers.add) as (source, runner):
        assert await source.outcome(source.add("add", {"a": 1})) == Released(1_000_000)
        assert runner._children.pids == []
    assert "no process can be started" in caplog.text
    assert children() == before


class NoThread:
    """What `threading.Thread` is when the system has no more of them."""

    def __init__(self, **_options):
        pass

    def start(self):
        raise RuntimeError("can't start new thread")


async def test_an_obedient_child_stops_and_is_kept():
    async with running(handlers.obedient, handlers.about, processes=1) as (source, runner):
        pid = value(await source.outcome(source.add("about")))["pid"]
        job = source.add("obedient")
        await source.said(job, "begun")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
        assert runner._children.pids == [pid]


async def test_a_child_that_ignores_its_cancellation_is_killed_after_the_grace():
    clock = ManualClock()
    async with running(handlers.stubborn, clock=clock, cancel_grace=7) as (source, runner):
        job = source.add("stubborn")
        (pid,) = await pids_said(source, job)
        source.stop(job)
        await clock.asleep(7)
        assert alive(pid)
        clock.advance(7)
        assert await source.outcome(job) == Stopped()
        await gone(pid)
        assert runner.busy == 0


async def test_a_kill_takes_what_the_handler_started():
    async with running(handlers.parent_of, processes=1) as (source, runner):
        job = source.add("parent_of")
        pids = await pids_said(source, job)
        assert all(alive(pid) for pid in pids)
        source.stop(job, "lost")
        await gone(*pids)
        await source.until(lambda: runner.busy == 0)
        assert job not in source.outcomes


async def test_a_child_that_exceeds_its_time_is_killed():
    clock = ManualClock()
    async with running(handlers.stubborn, clock=clock) as (source, _):
        job = source.add("stubborn", time_left=2_000_000)
        (pid,) = await pids_said(source, job)
        clock.advance(3)
        assert await source.outcome(job) == TimedOut()
        await gone(pid)


async def test_drain_and_stop_give_back_what_runs_in_children():
    source = MemorySource()
    registry = Registry()
    for fn in (handlers.stubborn, handlers.obedient):
        registry.add(fn)
    runner = Runner(registry, source, cancel_grace=0.2, processes=2)
    task = asyncio.create_task(runner.run())
    stubborn, obedient = source.add("stubborn"), source.add("obedient")
    (pid,) = await pids_said(source, stubborn)
    await source.said(obedient, "begun")
    async with asyncio.timeout(BOUND):
        await runner.drain(0.01)
        await task
    assert source.outcomes == {stubborn: Released(), obedient: Released()}
    await gone(pid, *runner._children.pids)


async def test_children_are_started_when_needed_and_bounded_and_end_when_idle():
    clock = ManualClock()
    async with running(handlers.obedient, clock=clock, processes=2) as (source, runner):
        await source.until(lambda: source.opened)
        assert runner._children.pids == []
        jobs = [source.add("obedient") for _ in range(3)]
        await source.started(*jobs[:2])
        assert jobs[2] not in source.held
        for job in jobs:
            await source.started(job)
            clock.advance(0.1)
            await source.until(lambda job=job: source.logs(job) or clock.advance(0.1))
            assert len(runner._children.pids) <= 2
            source.stop(job)
            await source.outcome(job)
        pids = runner._children.pids
        clock.advance(30)
        await asyncio.sleep(0)
        assert all(alive(pid) for pid in pids)
        clock.advance(60)
        await source.until(lambda: runner._children.pids == [])
        await gone(*pids)


async def test_handlers_of_a_file_are_found_by_children(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "side.py").write_text("FACTOR = 5\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from atlas_grpc.worker import handler\nfrom side import FACTOR\n"
        "@handler(executor='process')\ndef times(n: int) -> int:\n    return n * FACTOR\n"
    )
    registry = Registry()
    registry.load(str(file))
    async with running(registry) as (source, _):
        assert value(await source.outcome(source.add("times", {"n": 3}))) == 15


PROGRAM = """
import asyncio, sys
from atlas_grpc.worker import Registry, Runner
from tests.support.processes import alive
from tests.unit.worker import handlers
from tests.unit.worker.memory_source import MemorySource
registry, source = Registry(), MemorySource()
registry.add(handlers.holds_gil)
job = source.add("holds_gil")
async def main():
    running = asyncio.create_task(Runner(registry, source).run())
    await source.until(lambda: source.logs(job))
    print(source.logs(job)[0].message, file=sys.stderr, flush=True)
    await running
asyncio.run(main())
"""


def test_a_child_does_not_outlive_its_parent_even_while_it_holds_its_interpreter():
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        line = parent.stderr.readline()
        pids = [int(word) for word in line.split()[1:]]
        assert len(pids) == 2, line
        assert all(alive(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        parent.stderr.close()
    deadline = time.monotonic() + BOUND
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not any(alive(pid) for pid in pids)
