"""What one attempt may use of memory and processor time, in a process that is kept warm.

Soft limits of the kernel (setrlimit), set around each attempt above what the process uses at that moment, and taken
back after it. A program that the attempt starts inherits them; the kernel counts each process by itself.

- Memory is RLIMIT_DATA: what is allocated, privately and writable. RLIMIT_AS would count what is only reserved too, and
  the runtimes of Go and JavaScript, and every thread of glibc, reserve many times what they use: `node -e 1` needs more
  than 512 MiB then, instead of at most 64. Neither counts memory that processes share. To go beyond it is a
  MemoryError, or what a program makes of having no memory.
- Processor time is RLIMIT_CPU, in whole seconds: the kernel ends the process with SIGXCPU, whatever it is doing.
"""

from __future__ import annotations

import errno
import math
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATM = Path("/proc/self/statm")
_DATA_PAGES = 5
"""Which number of /proc/self/statm: pages of data and stack."""


@contextmanager
def limited(memory: int | None, cpu: float | None) -> Iterator[None]:
    """Bounds what this process uses within: bytes of memory and seconds of processor time more than at the beginning.
    Memory is bounded on Linux only.
    """
    before: list[tuple[int, tuple[int, int]]] = []
    try:
        if memory is not None and sys.platform == "linux":
            before.append(_lower(resource.RLIMIT_DATA, _allocated() + memory))
        if cpu is not None:
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            before.append(_lower(resource.RLIMIT_CPU, math.ceil(_spent() + cpu)))
        yield
    finally:
        for which, limits in before:
            resource.setrlimit(which, limits)


def leave_no_core() -> None:
    """No core files, which hold what jobs were given; whoever looks for a fault may raise the limit again."""
    _lower(resource.RLIMIT_CORE, 0)


def out_of_memory(exc: BaseException) -> bool:
    """Whether an exception says that there was no memory."""
    return isinstance(exc, MemoryError) or (isinstance(exc, OSError) and exc.errno == errno.ENOMEM)


def _lower(which: int, value: int) -> tuple[int, tuple[int, int]]:
    soft, hard = resource.getrlimit(which)
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(which, (min([value, *bounds]), hard))
    return which, (soft, hard)


def _allocated() -> int:
    return int(_STATM.read_bytes().split()[_DATA_PAGES]) * resource.getpagesize()


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
