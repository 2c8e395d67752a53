"""`atlas worker` as several processes, or as one that is started anew when its handlers change.

The parent loads neither gRPC nor handlers. A sibling is the same command again, with a name of its own.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ..observe.logs import configure
from ..process import run_loop
from ..process.siblings import Siblings, this_command

if TYPE_CHECKING:
    from ..process.changes import Changes


def run(
    count: int,
    *,
    name: str,
    for_ever: bool,
    changes: Changes | None,
    log_level: str,
    log_format: str,
    uvloop: bool = True,
) -> int:
    """Watches over so many workers, named `name-1` and so on, until they have ended; answers the exit code."""
    configure(log_level, log_format)  # type: ignore[arg-type]
    base = name or f"{socket.gethostname()}-{os.getpid()}"
    names = [base] if count == 1 else [f"{base}-{number}" for number in range(1, count + 1)]
    siblings = Siblings(this_command(), names, for_ever=for_ever)
    return run_loop(siblings.run(changes), uvloop=uvloop)
