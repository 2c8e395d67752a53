"""`python -m benchmarks`: measures Atlas against a bare grpc.aio server on this machine, in one run."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from . import machine
from .bench import FULL, NORMAL, QUICK, Bench
from .clients import Clients
from .report import Row, as_json, default_path, show, write
from .sections import SECTIONS

_MOST_CLIENTS = 4


def main() -> int:
    """The program. Ends with 1 only when something could not be measured, whatever the figures are."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    plan = QUICK if arguments.quick else FULL if arguments.full else NORMAL
    cpus = machine.cores()
    pinned = len(cpus) > 1 and machine.pin(0, cpus)
    server_cpus = cpus[:1] if pinned else cpus
    client_cpus = [[cpu] for cpu in cpus[1 : 1 + _MOST_CLIENTS]] if pinned else [cpus]
    notes = [
        f"the server on CPU {server_cpus[0]}, {len(client_cpus)} client process(es) on CPU {client_cpus}"
        if pinned
        else "servers and clients share the CPUs: they could not be pinned apart"
    ]
    rows: list[Row] = []
    failed = False
    start = time.monotonic()
    with Clients(client_cpus) as clients:
        bench = Bench(plan, clients, server_cpus)
        for name in arguments.sections or SECTIONS:
            print(f"{time.monotonic() - start:4.0f} s  {name} …", file=sys.stderr, flush=True)
            try:
                rows += SECTIONS[name](bench)
            except RuntimeError as error:
                failed = True
                notes.append(f"FAILED {name}: {error}")
    if bench.saturated:
        notes.append(
            f"no client CPU was left in: {'; '.join(bench.saturated)}. The servers could have done more; compare CPU."
        )
    environment = machine.describe()
    show(rows, environment, notes)
    write(arguments.json, as_json(rows, environment, {**asdict(plan), "sections": arguments.sections}, notes))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    size.add_argument("--full", action="store_true", help="with 1,000,000 stored jobs")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=default_path(),
        help="where the figures go as JSON (benchmarks/results/…)",
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", choices=[*SECTIONS, []], help=", ".join(SECTIONS))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
