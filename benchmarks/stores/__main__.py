"""`python -m benchmarks.stores`: measures Atlas on each store, beside the store's engine by itself, in one run."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.clients import Clients
from benchmarks.report import as_json, default_path, show, write

from . import engines
from .bench import StoreBench
from .plan import NORMAL, QUICK
from .sections import SECTIONS, USUAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.report import Row

    from .plan import Plan


class _Run:
    """What was measured so far, and what could not be."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.notes = [
            "server, engine and client share the CPUs, as nothing is pinned",
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

    def measure(self, plan: Plan, stores: Sequence[str], sections: Sequence[str]) -> None:
        """Goes through the stores, one after the other."""
        cpus = machine.cores()
        with Clients([cpus]) as clients:
            for name in stores:
                with self.part(name), engines.running(name) as engine:
                    self.notes.append(f"{name}: {engine.settings}")
                    bench = StoreBench(plan, clients, cpus, engine)
                    for section in sections:
                        with self.part(f"{name} {section}"):
                            self.rows += SECTIONS[section](bench)

    def report(self, path: Path, settings: dict[str, object]) -> None:
        """Shows and keeps what there is."""
        environment, notes = machine.describe(), self.notes + self.failures
        show(self.rows, environment, notes)
        write(path, as_json(self.rows, environment, settings, notes))


def main() -> int:
    """The program. Ends with 1 only when something could not be measured, whatever the figures are."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    given = {"rounds": arguments.rounds, "queued": arguments.jobs, "behind": arguments.behind}
    plan = replace(QUICK if arguments.quick else NORMAL, **{name: value for name, value in given.items() if value})
    sections = list(arguments.sections or (SECTIONS if arguments.full or arguments.quick else USUAL))
    run = _Run()
    try:
        run.measure(plan, arguments.stores, sections)
    except (KeyboardInterrupt, SystemExit):
        run.failures.append("FAILED: the run was cut short")
        raise
    finally:
        run.report(arguments.json, {**asdict(plan), "stores": arguments.stores, "sections": sections})
    return 1 if run.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    size.add_argument("--full", action="store_true", help="with 1,000,000 jobs behind")
    parser.add_argument(
        "--stores", type=_names, metavar="A,B", default=list(engines.NAMES), help=", ".join(engines.NAMES)
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each figure is measured")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many are drained")
    parser.add_argument("--behind", type=int, metavar="N", help="how many are behind")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=default_path("stores"),
        help="where the figures go as JSON (benchmarks/results/…)",
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", choices=[*SECTIONS, []], help=", ".join(SECTIONS))
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(engines.NAMES):
        raise argparse.ArgumentTypeError(f"there is no store {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
