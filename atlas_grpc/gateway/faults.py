"""Faults of the gateway itself: logged by type and place, never by text, which may hold what a client sent."""

from __future__ import annotations

from ..observe.logs import get_logger

_log = get_logger("atlas.gateway")


def report(err: BaseException, path: bytes) -> None:
    """Logs an exception that should not have happened while `path` was served."""
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    _log.error("gateway_fault", error=type(err).__name__, where=where, path=path[:200].decode("latin-1"))
