"""What all sections share: the processes, the settings of the run, and one interleaved measurement."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .report import Figure, Row, percentile
from .servers import Atlas, Echo, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clients import Clients
    from .meter import Answer

BATCH = 100
"""Jobs in a SubmitJobs call."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    seconds: float
    warmup: float
    rounds: int
    in_flight: tuple[int, ...]
    queued: int
    watchers: tuple[int, ...]
    idle_watches: int
    stored: int
    small: int
    large: int


QUICK = Plan(0.15, 0.05, 1, (1, 8), 200, (1, 5), 20, 500, 200, 1000)
NORMAL = Plan(1.5, 0.4, 5, (1, 32, 256), 20_000, (1, 100, 1000), 2000, 100_000, 10_000, 100_000)
FULL = Plan(1.5, 0.4, 5, (1, 32, 256), 20_000, (1, 100, 1000), 5000, 200_000, 10_000, 1_000_000)


class Bench:
    """The run: servers on one CPU, clients on the others."""

    def __init__(self, plan: Plan, clients: Clients, server_cpus: list[int]) -> None:
        self.plan = plan
        self.clients = clients
        self._server_cpus = server_cpus
        self.saturated: list[str] = []
        """Measurements in which a client had no CPU time left: the servers could have done more."""

    def atlas(self) -> Atlas:
        """A fresh Atlas."""
        return Atlas(self._server_cpus)

    def echo(self) -> Echo:
        """A fresh echo server."""
        return Echo(self._replies, self._server_cpus)

    @cached_property
    def _replies(self) -> dict[str, bytes]:
        with self.atlas() as atlas:
            answers = self.clients.call("replies", target=atlas.target, batch=BATCH)
        return {name: base64.b64decode(body) for name, body in answers.items()}

    def unary(self, server: Server, method: str, source: list[Any], in_flight: int) -> Answer:
        """One round of unary calls."""
        return self.clients.load(
            in_flight,
            target=server.target,
            pid=server.pid,
            method=method,
            source=source,
            seconds=self.plan.seconds,
            warmup=self.plan.warmup,
        )

    def fill(self, server: Server, jobs: int, kind: str = "later", sample: int = 5000) -> Answer:
        """Stores jobs; answers how long that took and the ids of some."""
        return self.clients.call(
            "fill", target=server.target, kind=kind, jobs=jobs, batch=min(1000, jobs), sample=sample
        )

    def compare(
        self,
        section: str,
        name: str,
        unit: str,
        atlas: Callable[[], Answer],
        baseline: Callable[[], Answer],
        *,
        scale: float = 1.0,
        rounds: int | None = None,
    ) -> Row:
        """Rounds of both by turns, the first one alternating; a row of their rates with latencies and CPU costs."""
        answers = interleave({"baseline": baseline, "atlas": atlas}, rounds or self.plan.rounds)
        if self.plan.rounds > 1 and max(answer["client_cpu"] for answer in answers["baseline"]) > 0.97:
            self.saturated.append(name)
        return row_of(section, name, unit, answers["atlas"], answers["baseline"], scale=scale)


def interleave(sides: dict[str, Callable[[], Answer]], rounds: int) -> dict[str, list[Answer]]:
    """Measures all sides in each round, every other time in the opposite order."""
    answers: dict[str, list[Answer]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in reversed(sides) if number % 2 else sides:
            answers[name].append(sides[name]())
    return answers


def row_of(
    section: str, name: str, unit: str, atlas: list[Answer], baseline: list[Answer], *, scale: float = 1.0
) -> Row:
    """A row of the rates of paired rounds, with latencies and CPU costs. There may be no baseline."""
    ours, theirs = figures(unit, scale, atlas), figures(unit, scale, baseline) if baseline else {}
    row = Row(section, name, ours.pop("rate"), theirs.pop("rate", None), more=ours, baseline_more=theirs)
    return row.compare()


def figures(unit: str, scale: float, answers: list[Answer]) -> dict[str, Figure]:
    """The rates, and where they were measured latencies in ms and CPU in µs for one of what is counted."""
    found = {"rate": Figure(unit, [answer["rate"] * scale for answer in answers])}
    timed = [answer["latencies"] for answer in answers if answer["latencies"]]
    for name, share in (("p50", 0.50), ("p99", 0.99)) if timed else ():
        found[name] = Figure("ms", [percentile(latencies, share) / 1000 for latencies in timed])
    for name, key in (("CPU", "server_cpu"), ("worker's CPU", "worker_cpu"), ("engine's CPU", "engine_cpu")):
        costs = [answer.get(key, 0) * 1e6 / (answer["rate"] * scale) for answer in answers if answer["rate"]]
        if any(costs):
            found[name] = Figure("µs", costs)
    return found
