"""`python -m benchmarks.workers`: measures remote workers, beside the worker in the server's process, in one run."""

from __future__ import annotations

import sys

from benchmarks import over_stores

from .bench import NORMAL, QUICK, WorkerBench
from .sections import SECTIONS


def main() -> int:
    """The program."""
    parser = over_stores.parser("workers", __doc__, [*SECTIONS], ("memory", "postgresql"))
    over_stores.amounts(parser)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    arguments = parser.parse_args()
    sections = {name: SECTIONS[name] for name in arguments.sections or SECTIONS}
    return over_stores.perform(arguments, QUICK if arguments.quick else NORMAL, WorkerBench, sections)


if __name__ == "__main__":
    sys.exit(main())
