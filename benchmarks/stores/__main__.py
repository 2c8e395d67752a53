"""`python -m benchmarks.stores`: measures Atlas on each store, beside the store's engine by itself, in one run."""

from __future__ import annotations

import sys

from benchmarks import over_stores

from . import engines
from .bench import StoreBench
from .plan import NORMAL, QUICK
from .sections import SECTIONS, USUAL


def main() -> int:
    """The program."""
    parser = over_stores.parser("stores", __doc__, [*SECTIONS], engines.NAMES)
    over_stores.amounts(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    size.add_argument("--full", action="store_true", help="with 1,000,000 jobs behind")
    parser.add_argument("--behind", type=int, metavar="N", help="how many are behind")
    arguments = parser.parse_args()
    named = arguments.sections or (SECTIONS if arguments.full or arguments.quick else USUAL)
    sections = {name: SECTIONS[name] for name in named}
    return over_stores.perform(arguments, QUICK if arguments.quick else NORMAL, StoreBench, sections)


if __name__ == "__main__":
    sys.exit(main())
