"""`python -m benchmarks.faults`: measures how soon a job reacts to what happens to it in a remote worker."""

from __future__ import annotations

import sys

from benchmarks import over_stores

from .plan import NORMAL, QUICK
from .sections import SECTIONS


def main() -> int:
    """The program."""
    parser = over_stores.parser("faults", __doc__, [*SECTIONS], ("memory", "postgresql"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    arguments = parser.parse_args()
    sections = {name: SECTIONS[name] for name in arguments.sections or SECTIONS}
    return over_stores.perform(arguments, QUICK if arguments.quick else NORMAL, over_stores.OneStore, sections)


if __name__ == "__main__":
    sys.exit(main())
