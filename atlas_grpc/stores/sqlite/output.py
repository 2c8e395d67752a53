"""Progress and log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...model import LogLine, Progress, Severity, State
from ..base import Output
from .batches import rows_in, select_in, select_list, write_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ...model import Update
    from .transaction import Transaction

_LINE_OVERHEAD = 200
"""Bytes that a kept line is taken to need beside its text, as in the memory store."""

_TOKENS = "select json_group_array(json_array(id, n, state, fence, attempt)) from state where id in (?*)"
_EXTENTS = "select json_group_array(json_array(n, log_start, log_end, log_size)) from output where n in (?*)"
_PROGRESS = (
    "insert into output (n, current, total, message, time) values ?* on conflict (n) do update"
    " set current = excluded.current, total = excluded.total, message = excluded.message, time = excluded.time"
)
_EXTENT = (
    "insert into output (n, log_start, log_end, log_size) values ?* on conflict (n) do update"
    " set log_start = excluded.log_start, log_end = excluded.log_end, log_size = excluded.log_size"
)
_LINE = "insert into log (n, line, time, attempt, severity, message) values ?*"
_OUTPUTS = (
    "select s.id, o.current, o.total, o.message, o.time, o.log_start, o.log_end from state s join output o on o.n = s.n"
    " where s.id in (?*)"
)
"""Row by row: JSON as SQLite writes it does not keep all digits of a number."""
_LOGS = (
    "select json_group_array(json_array(line, severity, message, attempt, time)) from (select * from log"
    " where n = (select n from state where id = ?) and line >= ? order by line limit ?)"
)


def report(tx: Transaction, updates: Sequence[Update]) -> list[bool]:
    """`Store.report`."""
    tx.begin()
    tokens = {row[0]: row[1:] for row in select_in(tx.connection, _TOKENS, [update.job_id for update in updates])}
    now = tx.clock.now()
    answers: list[bool] = []
    progress: dict[int, tuple[Any, ...]] = {}
    logs: dict[int, list[tuple[LogLine, int]]] = {}
    for update in updates:
        n, state, fence, attempt = tokens.get(update.job_id, (0, 0, 0, 0))
        holds = state == State.RUNNING and fence == update.fence
        answers.append(holds)
        if holds:
            shown = update.progress
            if shown is not None:
                progress[n] = (n, shown.current, shown.total, shown.message, now)
            if update.logs:
                logs.setdefault(n, []).extend((line, attempt) for line in update.logs)
            tx.outputs.append(update.job_id)
    write_rows(tx.connection, _PROGRESS, "(?, ?, ?, ?, ?)", list(progress.values()))
    if logs:
        _append(tx, logs, now)
    return answers


def _append(tx: Transaction, logs: dict[int, list[tuple[LogLine, int]]], now: int) -> None:
    """Adds lines, with the attempts that wrote them."""
    extents = {row[0]: row[1:] for row in select_in(tx.connection, _EXTENTS, list(logs))}
    rows: list[tuple[Any, ...]] = []
    after: list[tuple[int, int, int, int]] = []
    for n, lines in logs.items():
        start, end, size = extents.get(n, (0, 0, 0))
        for line, attempt in lines:
            rows.append((n, end, now, attempt, int(line.severity), line.message))
            end += 1
            size += _LINE_OVERHEAD + len(line.message)
        after.append((n, start, end, size))
    write_rows(tx.connection, _LINE, "(?, ?, ?, ?, ?, ?)", rows)
    write_rows(tx.connection, _EXTENT, "(?, ?, ?, ?)", [_cut(tx, *extent) for extent in after])


def _cut(tx: Transaction, n: int, start: int, end: int, size: int) -> tuple[int, int, int, int]:
    """Deletes the oldest lines of a log beyond the bounds, and answers what is left of it."""
    limits = tx.limits
    first = start
    if end - start > limits.max_log_lines or size > limits.max_log_bytes:
        for line, length in tx.connection.execute(
            "select line, length(message) from log where n = ? order by line", (n,)
        ):
            if end - line <= limits.max_log_lines and size <= limits.max_log_bytes:
                break
            size -= _LINE_OVERHEAD + length
            start = line + 1
    if start > first:
        tx.connection.execute("delete from log where n = ? and line < ?", (n, start))
    return n, start, end, size


def outputs(connection: sqlite3.Connection, ids: Sequence[str]) -> list[Output]:
    """`Store.outputs`."""
    found = {row[0]: _output(row[1:]) for row in rows_in(connection, _OUTPUTS, ids)}
    return [found.get(job_id, _NOTHING) for job_id in ids]


_NOTHING = Output()


def _output(row: Sequence[Any]) -> Output:
    current, total, message, time, start, end = row
    return Output(None if time is None else Progress(current, total, message, time), start, end)


def logs(connection: sqlite3.Connection, job_id: str, start: int, limit: int) -> list[LogLine]:
    """`Store.logs`."""
    rows = sorted(select_list(connection, _LOGS, job_id, start, limit))
    return [
        LogLine(Severity(severity), message, attempt, line, time) for line, severity, message, attempt, time in rows
    ]
