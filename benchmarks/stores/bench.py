"""What the sections share: the servers on one engine, its plain queue, rounds, and how rows are made of them."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import wire
from benchmarks.bench import row_of
from benchmarks.over_stores import OneStore, rated
from benchmarks.report import Figure
from benchmarks.servers import SLOTS, Atlas

from .plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.meter import Answer
    from benchmarks.over_stores import Sides
    from benchmarks.report import Row
    from benchmarks.servers import Server

BATCHES_IN_FLIGHT = 4
HANDLERS = "benchmarks.stores.handlers"
_BEHIND = "behind", -1
"""Type and priority of jobs that stay where they are."""
_FILL_CHUNK = 50_000


class StoreBench(OneStore[Plan]):
    """The run on one store."""

    def atlas(self, url: str | None = None, handlers: str = HANDLERS) -> Atlas:
        """A fresh Atlas, on an empty store of the engine unless another is named."""
        return Atlas(self.cpus, store=url or self.engine.new_url(), handlers=handlers)

    def fill_behind(self, atlas: Server, jobs: int) -> None:
        """Stores jobs that are ready and stay so, behind all others."""
        kind, priority = _BEHIND
        start, left = time.monotonic(), jobs
        while left:
            part = min(left, _FILL_CHUNK)
            arguments = {"kind": kind, "jobs": part, "batch": min(part, 1000), "sample": 0, "priority": priority}
            self.clients.call("fill", target=atlas.target, **arguments)
            left -= part
            self.tell(f"{jobs - left:,} jobs behind, {(jobs - left) / (time.monotonic() - start):,.0f}/s")

    def submits(self, atlas: Server) -> Answer:
        """A round of SubmitJob, of jobs that are ready and stay so."""
        return self._unary(atlas, wire.SUBMIT, ["submits", *_BEHIND], self.plan.in_flight)

    def batches(self, atlas: Server) -> Answer:
        """The same by SubmitJobs."""
        return self._unary(
            atlas, wire.SUBMIT_MANY, ["batches", _BEHIND[0], self.plan.batch, _BEHIND[1]], BATCHES_IN_FLIGHT
        )

    def _unary(self, atlas: Server, method: str, source: list[Any], in_flight: int) -> Answer:
        return self.clients.load(in_flight, **self._pids(atlas), **self._window(), method=method, source=source)

    def drain(self, atlas: Server, kind: str = "noop", gate: str = "") -> Answer:
        """A round of jobs through the worker in the server's process. `gate` names the one that holds it already."""
        jobs = self.plan.queued
        arguments = {"jobs": jobs, "slots": SLOTS, "batch": min(self.plan.batch, jobs), "kind": kind, "path": gate}
        return rated(jobs, self.clients.call("drain", **self._pids(atlas), **arguments))

    def run_jobs(self, atlas: Server) -> Answer:
        """A round of RunJob, one after the other."""
        return self.clients.call("run_jobs", **self._pids(atlas), **self._window())

    def plain_enqueue(self, batch: int, lanes: int) -> Answer:
        """A round of plain inserts."""
        return self._plain("enqueue", lanes=lanes, batch=batch, **self._window())

    def plain_drain(self, lanes: int) -> Answer:
        """A round of plain claims and finishes."""
        jobs = self.plan.queued
        return rated(jobs, self._plain("drain", lanes=lanes, jobs=jobs, batch=SLOTS))

    def plain_latency(self) -> Answer:
        """A round of jobs that are stored, claimed and finished, one after the other."""
        return self._plain("latency", **self._window())

    def plain_by_lanes(self, measure: Callable[[int], Answer]) -> Sides:
        """The plain sides of a comparison: by one connection, and by as many as the store has."""
        lanes = sorted({1, self.engine.connections}) if self.engine.plain else []
        return {f"plain, {count} connection{'s' * (count > 1)}": partial(measure, count) for count in lanes}

    def _plain(self, op: str, **arguments: Any) -> Answer:
        engine = self.engine
        where = {"kind": engine.plain, "address": engine.address, "engine": engine.pid}
        return self.clients.call(f"plain_{op}", **where, **arguments)

    def _pids(self, atlas: Server) -> dict[str, Any]:
        return {"target": atlas.target, "pid": atlas.pid, "engine": self.engine.pid}

    def _window(self) -> dict[str, float]:
        return {"seconds": self.plan.seconds, "warmup": self.plan.warmup}

    def beside_plain(self, name: str, unit: str, answers: dict[str, list[Answer]], scale: int = 1) -> Row:
        """Atlas beside that plain side which did most; the others are told too."""
        plain = {
            side: Figure(unit, [answer["rate"] * scale for answer in found])
            for side, found in answers.items()
            if side.startswith("plain")
        }
        best = max(plain, key=lambda side: plain[side].median, default=None)
        row = row_of(self.engine.name, name, unit, answers["Atlas"], answers[best] if best else [], scale=scale)
        if len(plain) > 1:
            row.more |= plain
        return row
