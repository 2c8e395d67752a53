"""The measurements, one function for each section of the report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import wire
from .bench import BATCH, interleave, row_of
from .report import Figure, Row
from .servers import SLOTS

if TYPE_CHECKING:
    from .bench import Bench
    from .meter import Answer
    from .servers import Server

_STORED_FOR_GETS = 10_000
_BATCHES_IN_FLIGHT = 4
_EVENTS_PER_MS = 30
"""What all watchers together are offered: less than one client reads."""


def unary(bench: Bench) -> list[Row]:
    """SubmitJob and GetJob against a bare call with the same messages."""
    section = "unary calls"
    with bench.echo() as echo, bench.atlas() as atlas:
        ids = bench.fill(atlas, min(_STORED_FOR_GETS, bench.plan.stored))["ids"]
        cases: list[tuple[str, str, list[Any]]] = [
            (wire.SUBMIT, "SubmitJob", ["submits", "later"]),
            (wire.GET, "GetJob", ["gets", ids]),
        ]
        rows = [
            _call_row(bench, section, f"{name}, {lanes} in flight", (echo, atlas), method, source, lanes)
            for method, name, source in cases
            for lanes in bench.plan.in_flight
        ]
        lanes = bench.plan.in_flight[1]
        for name, kind in (("with a payload", "order"), ("of a no-op job that runs", "noop")):
            source = ["submits", kind]
            title = f"SubmitJob {name}, {lanes} in flight"
            rows.append(_call_row(bench, section, title, (echo, atlas), wire.SUBMIT, source, lanes))
        rows.append(_raw(bench, echo, lanes))
    for row in rows:
        if row.name in (f"SubmitJob, {lanes} in flight", f"GetJob, {lanes} in flight"):
            row.aim("≥ 0.85", (row.ratio or 0) >= 0.85)
    return rows


def _call_row(
    bench: Bench, section: str, name: str, servers: tuple[Server, Server], method: str, source: list[Any], lanes: int
) -> Row:
    echo, atlas = servers
    return bench.compare(
        section,
        name,
        "/s",
        lambda: bench.unary(atlas, method, source, lanes),
        lambda: bench.unary(echo, method, source, lanes),
    )


def _raw(bench: Bench, echo: Server, lanes: int) -> Row:
    """For scale: what the bare server answers when it does not even parse."""
    rounds = [bench.unary(echo, wire.RAW, ["submits", "later"], lanes) for _ in range(bench.plan.rounds)]
    rates = Figure("/s", [answer["rate"] for answer in rounds])
    return Row("unary calls", f"bare echo of raw bytes, {lanes} in flight", baseline=rates)


def batches(bench: Bench) -> list[Row]:
    """SubmitJobs, 100 jobs a call."""
    rows = []
    with bench.echo() as echo, bench.atlas() as atlas:
        for name, kind in (("SubmitJobs", "later"), ("SubmitJobs with payloads", "order")):
            source = ["batches", kind, BATCH]
            row = bench.compare(
                "batches",
                f"{name}, {BATCH} a call, {_BATCHES_IN_FLIGHT} in flight",
                "jobs/s",
                partial(bench.unary, atlas, wire.SUBMIT_MANY, source, _BATCHES_IN_FLIGHT),
                partial(bench.unary, echo, wire.SUBMIT_MANY, source, _BATCHES_IN_FLIGHT),
                scale=BATCH,
            )
            rows.append(row)
    rows[0].aim("≥ 45,000 jobs/s", rows[0].atlas is not None and rows[0].atlas.median >= 45_000)
    return rows


def latency(bench: Bench) -> list[Row]:
    """RunJob of a no-op job at low load, against a bare unary call."""
    plan = bench.plan
    with bench.echo() as echo, bench.atlas() as atlas:
        row = bench.compare(
            "latency",
            "RunJob of a no-op job: p50, 1 in flight",
            "/s",
            lambda: bench.clients.call(
                "run_jobs", target=atlas.target, pid=atlas.pid, seconds=plan.seconds, warmup=plan.warmup
            ),
            lambda: bench.unary(echo, wire.SUBMIT, ["submits", "noop"], 1),
        )
    row.promote("p50")
    return [row.aim("≤ 2.5 at p50", (row.ratio or 0) <= 2.5)]


def drain(bench: Bench) -> list[Row]:
    """No-op jobs a second through the worker in the server's process, from a full queue."""
    with bench.atlas() as atlas:
        stamps, clients = _drains(bench, atlas, bench.plan.rounds)
    row = Row("drain", f"{bench.plan.queued:,} queued no-op jobs", stamps, more={"as a client sees it": clients})
    return [row.aim("≥ 40,000/s", stamps.median >= 40_000)]


def _drains(bench: Bench, atlas: Server, rounds: int) -> tuple[Figure, Figure]:
    """Jobs a second by the server's stamps and by a client's clock."""
    stamps, clients = Figure("jobs/s"), Figure("jobs/s")
    jobs = bench.plan.queued
    for _ in range(rounds):
        answer = bench.clients.call("drain", target=atlas.target, jobs=jobs, slots=SLOTS)
        stamps.values.append(jobs / answer["seconds"])
        clients.values.append(jobs / answer["known"])
    return stamps, clients


def watching(bench: Bench) -> list[Row]:
    """Messages to watchers of one job that changes all the time, against a bare stream with the same pace."""
    plan = bench.plan
    rows = []
    with bench.echo() as echo, bench.atlas() as atlas:

        def measure(server: Server, watchers: int) -> Answer:
            return bench.clients.call(
                "watch",
                target=server.target,
                pid=server.pid,
                atlas=server is atlas,
                watchers=watchers,
                pause_ms=watchers / _EVENTS_PER_MS if watchers > 1 else 0,
                seconds=plan.seconds,
                warmup=plan.warmup,
            )

        for watchers in plan.watchers:
            transitions: list[float] = []

            def ours(watchers: int = watchers, seen: list[float] = transitions) -> Answer:
                answer = measure(atlas, watchers)
                seen.append(answer["transitions"])
                return answer

            row = bench.compare(
                "watch",
                f"{watchers:,} watchers of a job",
                "messages/s",
                ours,
                partial(measure, echo, watchers),
                rounds=min(3, plan.rounds),
            )
            row.more["transitions"] = Figure("/s", transitions)
            rows.append(row)
        rows.append(_followed(bench, atlas))
    return rows


def _followed(bench: Bench, atlas: Server) -> Row:
    """Jobs executed while many follow all of them; here one follower is the baseline."""
    plan = bench.plan
    many = plan.watchers[1]
    jobs = plan.queued // 10

    def measure(followers: int) -> Answer:
        return bench.clients.call("follow", target=atlas.target, followers=followers, jobs=max(500, jobs // 500 * 500))

    name = f"jobs executed and told to {many:,} followers of all jobs"
    rounds = min(3, plan.rounds)
    sides = interleave({"baseline": partial(measure, 1), "atlas": partial(measure, many)}, rounds)
    return row_of("watch", name, "jobs/s", sides["atlas"], sides["baseline"])


def memory(bench: Bench) -> list[Row]:
    """What an open watch and a stored job take of the server's memory."""
    plan = bench.plan
    with bench.atlas() as atlas:
        ids = bench.fill(atlas, plan.idle_watches, sample=plan.idle_watches)["ids"]
        half = len(ids) // 2
        bench.clients.call("open_idle", target=atlas.target, job_ids=ids[:half])
        before = atlas.rss()
        bench.clients.call("open_idle", target=atlas.target, job_ids=ids[half:])
        watch = Figure("kB", [(atlas.rss() - before) / (len(ids) - half) / 1000])
        bench.clients.call("close_idle")
    rows = [Row("memory", f"an idle watch, of {len(ids) - half:,}", watch).aim("≤ 40 kB", watch.median <= 40)]
    for name, kind in (("a stored job", "later"), ("a stored job with a payload", "order")):
        with bench.atlas() as atlas:
            bench.fill(atlas, 1000, kind)
            before = atlas.rss()
            bench.fill(atlas, plan.stored, kind)
            figure = Figure("kB", [(atlas.rss() - before) / plan.stored / 1000])
        rows.append(Row("memory", f"{name}, of {plan.stored:,}", figure))
    return rows


def growth(bench: Bench) -> list[Row]:
    """The same operations with few and with many stored jobs; here the small store is the baseline."""
    plan = bench.plan
    section = f"cost with {plan.large:,} stored jobs, against {plan.small:,} (CPU of the server)"
    with bench.atlas() as small, bench.atlas() as large:
        few = bench.fill(small, plan.small)["ids"]
        many = bench.fill(large, plan.large)["ids"]
        lanes = bench.plan.in_flight[1]
        rows = [
            bench.compare(
                section,
                f"SubmitJob, {lanes} in flight",
                "/s",
                lambda: bench.unary(large, wire.SUBMIT, ["submits", "later"], lanes),
                lambda: bench.unary(small, wire.SUBMIT, ["submits", "later"], lanes),
            ),
            bench.compare(
                section,
                f"GetJob, {lanes} in flight",
                "/s",
                lambda: bench.unary(large, wire.GET, ["gets", many], lanes),
                lambda: bench.unary(small, wire.GET, ["gets", few], lanes),
            ),
        ]
        rows = [row.promote("CPU") for row in rows]
        rounds = 1 if plan.rounds == 1 else 3
        ours, theirs = _drains(bench, large, rounds)[0], _drains(bench, small, rounds)[0]
    claim = Row(section, "claim, run and finish a no-op job", _cost(ours), _cost(theirs)).compare()
    return [row.aim("≤ 1.3", (row.ratio or 0) <= 1.3) for row in [*rows, claim]]


def _cost(rate: Figure) -> Figure:
    return Figure("µs", [1e6 / value for value in rate.values])


SECTIONS = {
    "unary": unary,
    "batches": batches,
    "latency": latency,
    "drain": drain,
    "watch": watching,
    "memory": memory,
    "growth": growth,
}
