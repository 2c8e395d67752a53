"""The heartbeat, in a thread of its own: a handler that blocks the event loop must not cost the worker its lease.

The lease is known to last from the moment at which a beat was *sent*, on this machine's monotonic clock. A worker whose
loop stands still for very long is of no use to anybody and must not look healthy, so then the beats stop, and its jobs
go to others.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from .. import pb
from ..observe.logs import get_logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

STALL_LIMIT = 600.0
"""Seconds for which the event loop may stand still before the lease is let go."""
_TIMES = 4
"""Beats in the time of a lease."""
_LONGEST_CALL = 5.0

log = get_logger("atlas.worker")


class Beats:
    """Keeps a session. `kept_until` is the monotonic time up to which it is known to last."""

    def __init__(
        self,
        connect: Callable[[str], grpc.Channel],
        loop: asyncio.AbstractEventLoop,
        on_session_ended: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._on_session_ended = on_session_ended
        self._session = ""
        self._target = ""
        self._lease = 0.0
        self._seen = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.kept_until = 0.0

    def begin(self, target: str, session: str, lease: float, sent: float) -> None:
        """A stream was opened for the session, by a hello that was sent then. `lease` in seconds."""
        self._target, self._session, self._lease = target, session, lease
        self.kept_until = max(self.kept_until, sent + lease)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="atlas-beats", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """No more beats."""
        self._ended.set()

    def _run(self) -> None:
        target = self._target
        channel = self._connect(target)
        while not self._ended.wait(self._lease / _TIMES):
            if target != self._target:
                channel.close()
                target = self._target
                channel = self._connect(target)
            if self._loop_is_alive():
                self._beat(pb.WorkerServiceStub(channel))
        channel.close()

    def _beat(self, stub: pb.WorkerServiceStub) -> None:
        session, sent = self._session, time.monotonic()
        try:
            stub.Heartbeat(pb.HeartbeatRequest(session=session), timeout=min(_LONGEST_CALL, self._lease / _TIMES))
        except grpc.RpcError as error:
            code = error.code()
            log.debug("a heartbeat failed", code=str(code))
            if code is grpc.StatusCode.NOT_FOUND:
                with suppress(RuntimeError):  # the loop was closed
                    self._loop.call_soon_threadsafe(self._on_session_ended, session)
            return
        if session == self._session:
            self.kept_until = max(self.kept_until, sent + self._lease)

    def _loop_is_alive(self) -> bool:
        now = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # the loop was closed
            return False
        stalled = now - self._seen
        if stalled > STALL_LIMIT + self._lease:
            log.error("the event loop of the worker stands still: its lease is let go", seconds=round(stalled))
            return False
        return True

    def _look(self) -> None:
        self._seen = time.monotonic()
