"""The signals by which a service manager ends every process of a service at once.

A child of a worker leaves it to the worker to end it, which wants to drain. From its first instant: its interpreter
starts with the signals blocked, and takes them once it has handlers for them. What it starts or forks has the usual
signals.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIELDED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def shielded() -> Iterator[None]:
    """A process that is started within, by this thread, has to call `outlive_signals`: it gets none of them before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals() -> None:
    """Has this process ignore them from now on; called by its main thread while there is no other."""
    for number in SHIELDED:
        before = signal.signal(number, lambda *_: None)
        os.register_at_fork(after_in_child=partial(signal.signal, number, before))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SHIELDED)
