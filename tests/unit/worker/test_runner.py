"""The runner with coroutines and threads: leasing, capacity, outcomes, output, a source that fails."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading

import pytest

from atlas_grpc.errors import FailNow, Internal, InvalidArgument, RequestTooLarge, Unavailable
from atlas_grpc.model import Content, Failed, Released, Severity, Succeeded
from atlas_grpc.worker import JobContext, Registry, Runner, handler
from atlas_grpc.worker.output import MAX_LINES, Output
from tests.unit.worker.memory_source import ManualClock, MemorySource, QuickClock, running


@handler
async def double(n: int) -> int:
    return n * 2


@handler
def treble(n: int) -> int:
    return n * 3


@handler
async def quiet() -> None: ...


@handler
async def raises(what: str) -> object:
    match what:
        case "exit":
            raise SystemExit(1)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "generator":
            raise GeneratorExit
        case "self":
            asyncio.current_task().cancel()
            await asyncio.sleep(60)
        case "now":
            raise FailNow("no use", reason="NO_USE")
        case "unprintable":
            raise Unprintable
        case "nan":
            return float("nan")
        case "big":
            return "x" * 1000
        case "deep":
            return [[[]]]
    return what


@handler
def raises_in_thread(what: str) -> None:
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit, "stop": StopIteration}[what]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


class Gate:
    """Handlers that wait until they are let go, and how many run."""

    def __init__(self):
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0

    def _enter(self, step):
        with self.lock:
            self.running += step
            self.most = max(self.most, self.running)

    def pass_through(self):
        self._enter(1)
        self.open.wait(10)
        self._enter(-1)

    async def pass_async(self):
        self._enter(1)
        while not self.open.is_set():  # noqa: ASYNC110 - the gate is one for threads
            await asyncio.sleep(0)
        self._enter(-1)


async def test_results_come_back():
    async with running(double, treble, quiet) as (source, _):
        jobs = [source.add("double", {"n": n}) for n in range(100)] + [source.add("treble", {"n": n}) for n in range(9)]
        done = source.add("quiet")
        results = [json.loads((await source.outcome(job)).result.data) for job in jobs]
        assert results == [n * 2 for n in range(100)] + [n * 3 for n in range(9)]
        assert await source.outcome(done) == Succeeded(Content(b"null"))
        assert len(source.finishes) < 20
        worker, types, slots = source.opened
        assert (worker, [info.name for info in types], slots) == ("tester", ["double", "quiet", "treble"], 256)
    assert source.closed


@pytest.mark.parametrize(
    ("what", "reason", "retryable"),
    [
        ("exit", "SYSTEM_EXIT", True),
        ("interrupt", "KEYBOARD_INTERRUPT", True),
        ("cancelled", "CANCELLED_ERROR", True),
        ("generator", "GENERATOR_EXIT", True),
        ("self", "CANCELLED_ERROR", True),
        ("now", "NO_USE", False),
        ("unprintable", "UNPRINTABLE", True),
        ("nan", "RESULT_INVALID", False),
        ("big", "RESULT_TOO_LARGE", False),
        ("deep", "RESULT_INVALID", False),
    ],
)
async def test_whatever_a_coroutine_raises_ends_its_job_only(what, reason, retryable):
    def admit(content):
        return "too deep" if content.data.count(b"[") > 2 else None

    async with running(raises, admit=admit, max_result_bytes=500) as (source, runner):
        failed = await source.outcome(source.add("raises", {"what": what}))
        assert isinstance(failed, Failed)
        assert (failed.failure.reason, failed.retryable) == (reason, retryable)
        assert isinstance(await source.outcome(source.add("raises", {"what": "fine"})), Succeeded)
        assert runner.busy == 0


@pytest.mark.parametrize("what", ["exit", "interrupt", "generator", "stop"])
async def test_whatever_a_thread_raises_ends_its_job_only(what):
    async with running(raises_in_thread, treble) as (source, _):
        assert isinstance(await source.outcome(source.add("raises_in_thread", {"what": what})), Failed)
        assert isinstance(await source.outcome(source.add("treble", {"n": 1})), Succeeded)


async def test_the_log_tells_where_but_not_what(caplog):
    @handler
    def leaks(password: str) -> None:
        raise ValueError(password)

    async with running(leaks) as (source, _):
        failed = await source.outcome(source.add("leaks", {"password": "s3cret"}))
        assert failed.failure.message == "ValueError: s3cret"
    (record,) = [record for record in caplog.records if record.name == "atlas.worker"]
    text = logging.Formatter().format(record)
    assert record.levelno == logging.WARNING
    assert "s3cret" not in text
    assert "in leaks" in text


async def test_a_payload_that_no_longer_fits_fails_for_good():
    async with running(double) as (source, _):
        failed = await source.outcome(source.add("double", {"n": "2"}))
        assert (failed.failure.reason, failed.retryable) == ("INVALID_PAYLOAD", False)
        assert failed.failure.message.startswith("payload.n: ")


async def test_the_context_in_coroutines_and_threads():
    seen = {}
    carried = contextvars.ContextVar("carried", default="lost")

    def look(ctx, name):
        seen[name] = (ctx.id, ctx.namespace, ctx.type, ctx.queue, ctx.labels, ctx.attempt, ctx.max_attempts, ctx.run)
        seen[name + " more"] = (ctx.fence, ctx.deadline, ctx.time_left(), ctx.traceparent, carried.get(), ctx.cancelled)

    @handler
    async def here(ctx: JobContext) -> None:
        look(ctx, "here")

    @handler
    def there(ctx: JobContext) -> None:
        look(ctx, "there")

    carried.set("carried")
    clock = ManualClock()
    async with running(here, there, clock=clock) as (source, _):
        fields = {
            "labels": {"a": "b"},
            "attempt": 2,
            "run": 3,
            "time_left": 5_000_000,
            "traceparent": "00-t",
            "queue": "q",
        }
        jobs = [source.add(name, **fields) for name in ("here", "there")]
        for job in jobs:
            await source.outcome(job)
    for name, job, fence in (("here", jobs[0], 1), ("there", jobs[1], 2)):
        assert seen[name] == (job, "default", name, "q", {"a": "b"}, 2, 3, 3)
        assert seen[name + " more"] == (fence, clock.time + 5, 5.0, "00-t", "carried", False)


async def test_give_back_retry_in_and_fail():
    @handler
    async def signal(how: str, *, ctx: JobContext) -> None:
        {"back": lambda: ctx.give_back(2), "retry": lambda: ctx.retry_in(3, "m"), "fail": lambda: ctx.fail("m", "NO")}[
            how
        ]()

    async with running(signal) as (source, _):
        assert await source.outcome(source.add("signal", {"how": "back"})) == Released(2_000_000)
        retry = await source.outcome(source.add("signal", {"how": "retry"}))
        assert (retry.retry_in, retry.retryable, retry.failure.message) == (3_000_000, True, "m")
        fail = await source.outcome(source.add("signal", {"how": "fail"}))
        assert (fail.retryable, fail.failure.reason) == (False, "NO")


async def test_progress_and_logs_arrive_before_the_outcome_in_few_calls():
    @handler
    async def busy(ctx: JobContext) -> None:
        for n in range(500):
            ctx.progress(n, 500, f"step {n}")
            ctx.debug(f"line {n}")

    @handler
    def busy_thread(ctx: JobContext) -> None:
        for n in range(500):
            ctx.progress(n, 500)
            ctx.error(f"line {n}")

    for fn, severity in ((busy, Severity.DEBUG), (busy_thread, Severity.ERROR)):
        async with running(fn) as (source, _):
            job = source.add(fn.__name__, attempt=2)
            await source.outcome(job)
            assert [line.message for line in source.logs(job)] == [f"line {n}" for n in range(500)]
            assert {(line.severity, line.attempt) for line in source.logs(job)} == {(severity, 2)}
            assert source.progress(job)[-1].current == 499
            assert len(source.updates) < 100


async def test_progress_arrives_while_the_handler_runs():
    gate = asyncio.Event()

    @handler
    async def slow(ctx: JobContext) -> None:
        ctx.progress(1, 2)
        ctx.info("half")
        await gate.wait()

    async with running(slow) as (source, _):
        job = source.add("slow")
        await source.said(job, "half")
        assert source.progress(job)[-1].current == 1
        assert job not in source.outcomes
        gate.set()
        await source.outcome(job)


async def test_an_update_that_finds_the_lease_lost_stops_the_handler():
    stopped = asyncio.Event()

    @handler
    async def slow(ctx: JobContext) -> None:
        ctx.info("here")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    source = MemorySource()
    source.accept = False
    async with running(slow, quiet, source=source) as (source, runner):
        job = source.add("slow")
        await asyncio.wait_for(stopped.wait(), 10)
        await source.outcome(source.add("quiet"))
        assert job not in source.outcomes
        assert runner.busy == 0


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_the_concurrency_of_a_type_holds_while_others_run(kind):
    gate = Gate()
    if kind == "async":

        @handler(name="gated", concurrency=3)
        async def gated() -> None:
            await gate.pass_async()
    else:

        @handler(name="gated", concurrency=3)
        def gated() -> None:
            gate.pass_through()

    async with running(gated, double, slots=50) as (source, runner):
        jobs = [source.add("gated") for _ in range(10)]
        await source.until(lambda: gate.running == 3)
        others = [source.add("double", {"n": 1}) for _ in range(20)]
        for job in others:
            await source.outcome(job)
        assert runner.busy_by_type == {"gated": 3}
        assert not set(jobs[3:]) & set(source.held)
        gate.open.set()
        for job in jobs:
            assert isinstance(await source.outcome(job), Succeeded)
    assert gate.most == 3


async def test_slots_and_threads_bound_what_runs():
    gate = Gate()
    registry = Registry()
    for name in "abc":
        registry.handler(name=name)(lambda_of(gate))
    async with running(registry, slots=5, threads=2) as (source, runner):
        jobs = [source.add(name) for name in "aabbcc"]
        await source.until(lambda: gate.running == 2)
        assert runner.slots == 5
        assert sum(runner.busy_by_type.values()) == 2
        gate.open.set()
        for job in jobs:
            assert isinstance(await source.outcome(job), Succeeded)
    assert gate.most == 2


def lambda_of(gate):
    def wait() -> None:
        gate.pass_through()

    return wait


async def test_a_job_for_which_there_is_no_thread_goes_back(monkeypatch, caplog):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    async with running(treble, double) as (source, runner):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            jobs = [source.add("treble", {"n": 1}) for _ in range(3)]
            assert [await source.outcome(job) for job in jobs] == [Released(1_000_000)] * 3
        assert "no thread can be started" in caplog.text
        assert runner.busy == 0
        assert isinstance(await source.outcome(source.add("treble", {"n": 1})), Succeeded)


async def test_slots_bound_coroutines():
    gate = Gate()

    @handler
    async def gated() -> None:
        await gate.pass_async()

    async with running(gated, slots=4) as (source, runner):
        jobs = [source.add("gated") for _ in range(12)]
        await source.until(lambda: gate.running == 4)
        assert runner.busy == 4
        gate.open.set()
        for job in jobs:
            await source.outcome(job)
    assert gate.most == 4


async def test_types_that_share_too_few_slots_lease_nothing_in_vain():
    gate = Gate()
    registry = Registry()
    for name in "abc":
        registry.handler(name=name)(lambda_of(gate))
    registry.add(double)
    async with running(registry, slots=10, threads=2) as (source, _):
        jobs = [source.add(name) for name in "aabbcc"]
        others = [source.add("double", {"n": 1}) for _ in range(20)]
        for job in others:
            await source.outcome(job)
        await source.until(lambda: gate.running == 2)
        assert len(set(jobs) & set(source.held)) == 2
        gate.open.set()
        for job in jobs:
            assert isinstance(await source.outcome(job), Succeeded)
    assert gate.most == 2


async def test_a_lease_is_not_broken_off_when_other_work_ends():
    gate = Gate()
    registry = Registry()
    registry.handler(name="slow")(lambda_of(gate))
    registry.add(double)
    async with running(registry, threads=1) as (source, runner):
        first = source.add("slow")
        await source.started(first)
        second = source.add("slow")
        await source.until(lambda: [ask.type for ask in source.asks[-1][0]] == ["double"])
        leasing = runner._leasing
        gate.open.set()
        await source.outcome(second)
        assert leasing is not None
        assert not leasing.cancelled()


class Generous(MemorySource):
    """Gives more than it was asked for."""

    async def lease(self, room, **_):
        def more():
            asks, limit = room()
            return asks, limit + 1

        return await super().lease(more)


async def test_what_is_more_than_there_is_room_for_goes_back():
    gate = Gate()
    registry = Registry()
    for name in "ab":
        registry.handler(name=name)(lambda_of(gate))
    registry.add(double)
    async with running(registry, source=Generous(), slots=10, threads=1) as (source, runner):
        jobs = [source.add("a"), source.add("b")]
        await source.until(lambda: len(source.outcomes) == gate.running == 1)
        assert Released() in source.outcomes.values()
        assert runner.busy == 1
        gate.open.set()
        for job in jobs:
            await source.outcome(job)
    assert gate.most == 1


async def test_outcomes_gather_while_others_are_handed_in():
    source = MemorySource()
    gate = source.gates["finish"] = asyncio.Event()
    async with running(quiet, source=source, slots=10) as (source, _):
        jobs = [source.add("quiet") for _ in range(100)]
        await source.started(*jobs)
        gate.set()
        for job in jobs:
            await source.outcome(job)
    assert len(source.finishes) <= 3


async def test_a_source_that_fails_is_tried_again(caplog):
    source = MemorySource()
    source.errors["open"] = [Unavailable("a"), OSError("b")]
    source.errors["lease"] = [Unavailable("a"), ValueError("b"), Unavailable("c")]
    source.errors["finish"] = [Unavailable("a"), Internal("s3cret"), RuntimeError("b")]
    source.errors["update"] = [Unavailable("a")]

    @handler
    async def says(ctx: JobContext) -> None:
        ctx.info("word")

    async with running(says, source=source, clock=QuickClock()) as (source, _):
        job = source.add("says")
        await source.outcome(job)
        assert [line.message for line in source.logs(job)] == ["word"]
    assert not any(source.errors.values())
    assert "s3cret" not in caplog.text


async def test_a_result_that_the_source_refuses_still_ends_the_job():
    source = MemorySource()
    source.gates["finish"] = asyncio.Event()
    async with running(double, source=source) as (source, _):
        jobs = [source.add("double", {"n": n}) for n in range(3)]
        await source.started(*jobs)
        bad = InvalidArgument("no")
        source.errors["finish"] = [bad, bad]
        source.gates["finish"].set()
        outcomes = [await source.outcome(job) for job in jobs]
        assert [type(one) for one in outcomes] == [Failed, Succeeded, Succeeded]
        assert (outcomes[0].failure.reason, outcomes[0].retryable) == ("RESULT_INVALID", False)


async def test_among_many_that_the_source_refuses_one_is_found_soon():
    source = MemorySource()
    source.gates["finish"] = asyncio.Event()
    finish, calls = source.finish, []

    async def refuses_the_seventh(reports):
        calls.append(len(reports))
        if any(report.outcome == Succeeded(Content(b"14")) for report in reports):
            raise RequestTooLarge("too large")
        return await finish(reports)

    source.finish = refuses_the_seventh
    async with running(double, source=source) as (source, _):
        jobs = [source.add("double", {"n": n}) for n in range(64)]
        await source.started(*jobs)
        source.gates["finish"].set()
        outcomes = [await source.outcome(job) for job in jobs]
    assert [place for place, one in enumerate(outcomes) if isinstance(one, Failed)] == [7]
    assert (outcomes[7].failure.reason, outcomes[7].retryable) == ("RESULT_TOO_LARGE", False)
    assert len(calls) < 32


async def test_an_outcome_without_result_that_the_source_refuses_still_ends_the_job():
    source = MemorySource()
    source.errors["finish"] = [InvalidArgument("failure.reason: is none")]

    @handler
    async def fails() -> None:
        raise ValueError

    async with running(fails, source=source) as (source, _):
        outcome = await source.outcome(source.add("fails"))
        assert (outcome.failure.reason, outcome.retryable) == ("OUTCOME_REFUSED", False)
        assert "failure.reason: is none" in outcome.failure.message


async def test_progress_that_the_source_refuses_holds_up_nobody_elses():
    source = MemorySource()
    update = source.update

    async def refuses_two(updates):
        if any(line.message == "2" for one in updates for line in one.logs):
            raise InvalidArgument("no")
        return await update(updates)

    source.update = refuses_two
    go = asyncio.Event()

    @handler
    async def says(n: int, ctx: JobContext) -> None:
        await go.wait()
        ctx.info(str(n))

    async with running(says, source=source) as (source, _):
        jobs = [source.add("says", {"n": n}) for n in range(5)]
        await source.started(*jobs)
        go.set()
        for job in jobs:
            await source.outcome(job)
        assert [[line.message for line in source.logs(job)] for job in jobs] == [["0"], ["1"], [], ["3"], ["4"]]


async def test_progress_that_cannot_be_sent_does_not_hold_up_the_outcome():
    source = MemorySource()
    source.errors["update"] = [Unavailable("a")] * 50

    @handler
    async def says(ctx: JobContext) -> None:
        ctx.info("word")

    async with running(says, source=source, clock=QuickClock()) as (source, _):
        assert isinstance(await source.outcome(source.add("says")), Succeeded)


async def test_log_lines_that_cannot_be_sent_are_counted_in_the_log(caplog):
    source = MemorySource()
    source.errors["update"] = [Unavailable("a")] * 3

    @handler
    async def says(ctx: JobContext) -> None:
        ctx.info("one")
        ctx.info("two")
        await source.until(lambda: "given up" in caplog.text)
        ctx.info("three")

    async with running(says, source=source, clock=QuickClock()) as (source, _):
        job = source.add("says")
        await source.outcome(job)
        said = [line.message for line in source.logs(job)]
    assert said == ["three", "2 log lines were dropped here: they could not be sent, or not fast enough"]


def test_what_is_given_up_is_counted_until_it_is_told():
    output = Output(1, lambda: None)
    output.printed(Severity.INFO, ["line"] * (MAX_LINES + 1))
    output.give_up(len(output.take()[1]))
    last = output.take()[1]
    assert last[0].message == "line"
    assert last[1].message.startswith(f"{MAX_LINES} log lines were dropped here")
    output.give_up(len(last))
    (note,) = output.take()[1]
    assert note.message.startswith(f"{MAX_LINES + 1} log lines were dropped here")
    assert output.take() == (None, ())
    output.close()
    output.give_up(1)
    assert output.take() == (None, ())


async def test_a_runner_runs_only_once():
    async with running(quiet) as (source, runner):
        await source.until(lambda: source.opened)
        with pytest.raises(RuntimeError, match="once"):
            await runner.run()


async def test_a_runner_that_was_stopped_before_does_not_run():
    source = MemorySource()
    runner = Runner(Registry(), source)
    await runner.stop()
    await runner.run()
    assert source.opened is None


async def test_a_type_that_nobody_asked_for_goes_back():
    source = MemorySource()
    job = source.add("unknown")

    async def lease(_room, **_):
        if source.waiting:
            taken, source.waiting = source.waiting, []
            source.held[job] = taken[0]
            return taken
        return await asyncio.Event().wait()

    source.lease = lease
    async with running(quiet, source=source):
        assert await source.outcome(job) == Released()
