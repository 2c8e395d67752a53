"""A run over several stores: its arguments, its parts that may fail, what is shared on one store, and its report."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from . import machine
from .bench import interleave
from .clients import Clients
from .report import as_json, default_path, show, write
from .stores import engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .meter import Answer
    from .report import Row

    MakeBench = Callable[[Any, Clients, list[int], engines.Engine], Any]
    Sides = dict[str, Callable[[], Answer]]


class Rounds(Protocol):
    """What every plan says."""

    @property
    def rounds(self) -> int:
        """How often each figure is measured."""


P = TypeVar("P", bound=Rounds)


class OneStore(Generic[P]):
    """The run on one store."""

    def __init__(self, plan: P, clients: Clients, cpus: list[int], engine: engines.Engine) -> None:
        self.plan = plan
        self.clients = clients
        self.engine = engine
        self.cpus = cpus
        self._start = time.monotonic()

    def tell(self, text: str) -> None:
        """Says on stderr how far it is."""
        took = time.monotonic() - self._start
        print(f"{took:6.0f} s  {self.engine.name}: {text}", file=sys.stderr, flush=True)

    def rounds(self, what: str, sides: Sides, *, scale: int = 1, rounds: int | None = None) -> dict[str, list[Answer]]:
        """All sides by turns. What is counted stands for `scale` jobs."""

        def told(name: str, measure: Callable[[], Answer]) -> Answer:
            answer = measure()
            self.tell(f"{what}: {name}: {answer['rate'] * scale:,.0f}/s")
            return answer

        told_sides: Sides = {name: partial(told, name, side) for name, side in sides.items()}
        return interleave(told_sides, rounds or self.plan.rounds)


def rated(jobs: int, answer: Answer) -> Answer:
    """What a drain answered, with its rate."""
    return {**answer, "rate": jobs / answer["seconds"], "latencies": []}


class Run:
    """What was measured so far, and what could not be."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.notes = [
            "server, engine, worker and client share the CPUs, as nothing is pinned",
            f"a flush of the disk takes {engines.flush_ms():.2f} ms in the median",
        ]
        self.failures: list[str] = []

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part of the run that may fail without ending it."""
        try:
            yield
        except RuntimeError as error:
            self.failures.append(f"FAILED {what}: {error}")

    def measure(
        self,
        stores: Sequence[str],
        make_bench: MakeBench,
        plan: Any,
        sections: Mapping[str, Callable[[Any], list[Row]]],
    ) -> None:
        """Goes through the stores, one after the other."""
        cpus = machine.cores()
        with Clients([cpus]) as clients:
            for name in stores:
                with self.part(name), engines.running(name) as engine:
                    self.notes.append(f"{name}: {engine.settings}")
                    bench = make_bench(plan, clients, cpus, engine)
                    for section, measured in sections.items():
                        with self.part(f"{name} {section}"):
                            self.rows += measured(bench)

    def report(self, path: Path, settings: dict[str, object]) -> None:
        """Shows and keeps what there is."""
        environment, notes = machine.describe(), self.notes + self.failures
        show(self.rows, environment, notes)
        write(path, as_json(self.rows, environment, settings, notes))


def perform(
    arguments: argparse.Namespace, plan: Any, make_bench: MakeBench, sections: Mapping[str, Callable[[Any], list[Row]]]
) -> int:
    """The run. Answers 1 only when something could not be measured, whatever the figures are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    given = {name: getattr(arguments, name, None) for name in asdict(plan)}
    plan = replace(plan, **{name: value for name, value in given.items() if value})
    run = Run()
    try:
        run.measure(arguments.stores, make_bench, plan, sections)
    except (KeyboardInterrupt, SystemExit):
        run.failures.append("FAILED: the run was cut short")
        raise
    finally:
        run.report(arguments.json, {**asdict(plan), "stores": arguments.stores, "sections": [*sections]})
    return 1 if run.failures else 0


def parser(name: str, doc: str | None, sections: Sequence[str], stores: Sequence[str]) -> argparse.ArgumentParser:
    """The arguments that all such runs have."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    made.add_argument("--stores", type=_names, metavar="A,B", default=[*stores], help=", ".join(engines.NAMES))
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=default_path(name),
        help="where the figures go as JSON (benchmarks/results/…)",
    )
    made.add_argument("sections", nargs="*", metavar="SECTION", choices=[*sections, []], help=", ".join(sections))
    return made


def amounts(parser: argparse.ArgumentParser) -> None:
    """Arguments that take the place of a plan's fields, for runs that measure drains in rounds."""
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each figure is measured")
    parser.add_argument("--jobs", type=int, metavar="N", dest="queued", help="how many are drained")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(engines.NAMES):
        raise argparse.ArgumentTypeError(f"there is no store {', '.join(sorted(unknown))}")
    return names
