"""The claim, and the sessions it is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import lifecycle
from .batches import jobs_by_number, select_list
from .writes import known_as, move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Ask, Job
    from .transaction import Known, Transaction

_COLUMNS = "-priority, next_start, id, n, type, queue"
_NESTED = f"select json_group_array(json_array({_COLUMNS})) from (select * from state indexed by"  # noqa: S608 - constant
_ANY_QUEUE = f"{_NESTED} state_ready where ready and type = ? order by priority desc, next_start, id limit ?)"
_ONE_QUEUE = (
    f"{_NESTED} state_queue where ready and type = ? and queue = ? order by priority desc, next_start, id limit ?)"
)

_Candidate = list[Any]
"""A row of these columns: in the order of claims."""


def claim(tx: Transaction, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
    """`Store.claim`."""
    ledger = tx.ledger
    now = tx.clock.now()
    asks = [ask for ask in asks if ask.slots > 0 and ledger.types.get(ask.type)]
    if limit <= 0 or not asks or ledger.sessions.get(session, 0) <= now:
        return []
    tx.begin()
    taken = _chosen(_candidates(tx, asks, limit), asks, limit)
    moves: list[tuple[Known, Job]] = []
    for known, job in _records(tx, taken):
        ledger.fence += 1
        after = lifecycle.started(job, now, session=session, worker=worker, fence=ledger.fence)
        moves.append((known, after))
    move(tx, moves)
    return [job for _, job in moves]


def _candidates(tx: Transaction, asks: Sequence[Ask], limit: int) -> list[_Candidate]:
    """Enough ready jobs to serve the asks, best first. Asks for one type may compete, so each place is looked at as far
    as all of them together could need."""
    lists: list[list[_Candidate]] = []
    for job_type in dict.fromkeys(ask.type for ask in asks):
        same = [ask for ask in asks if ask.type == job_type]
        wanted = min(limit, sum(ask.slots for ask in same))
        if any(ask.queues is None for ask in same):
            lists.append(select_list(tx.connection, _ANY_QUEUE, job_type, wanted))
        lists += [
            select_list(tx.connection, _ONE_QUEUE, job_type, queue, wanted)
            for queue in {queue for ask in same for queue in ask.queues or ()}
        ]
    return lists[0] if len(lists) == 1 else sorted({row[2]: row for rows in lists for row in rows}.values())


def _chosen(found: Sequence[_Candidate], asks: Sequence[Ask], limit: int) -> list[_Candidate]:
    """The best candidates, each on account of the first ask that fits and has slots left."""
    left = [ask.slots for ask in asks]
    taken: list[_Candidate] = []
    for candidate in found:
        if len(taken) >= limit:
            break
        for index, ask in enumerate(asks):
            if left[index] > 0 and ask.type == candidate[4] and (ask.queues is None or candidate[5] in ask.queues):
                left[index] -= 1
                taken.append(candidate)
                break
    return taken


def _records(tx: Transaction, taken: Sequence[_Candidate]) -> list[tuple[Known, Job]]:
    found: dict[str, tuple[Known, Job]] = {}
    unknown: dict[str, int] = {}
    for _, _, job_id, n, _, _ in taken:
        known = tx.known.get(job_id)
        if known is None or known.job is None:
            unknown[job_id] = n
        else:
            found[job_id] = known, known.job
    for job_id, job in jobs_by_number(tx.connection, list(unknown.values())).items():
        found[job_id] = known_as(unknown[job_id], job), job
    return [found[candidate[2]] for candidate in taken]


def open_session(tx: Transaction, session: str, ttl: int, info: bytes) -> None:
    """`Store.open_session`."""
    _extend(tx, session, tx.clock.now() + ttl)
    if info:
        tx.connection.execute(
            "insert into session_info (session, info) values (?, ?)"
            " on conflict (session) do update set info = excluded.info",
            (session, info),
        )
    else:
        _forget_info(tx, session)


def renew(tx: Transaction, sessions: Sequence[str], ttl: int) -> list[bool]:
    """`Store.renew`."""
    now = tx.clock.now()
    alive = [tx.ledger.sessions.get(session, 0) > now for session in sessions]
    for session, lives in zip(sessions, alive, strict=True):
        if lives:
            _extend(tx, session, now + ttl)
    return alive


def _extend(tx: Transaction, session: str, until: int) -> None:
    tx.begin()
    tx.connection.execute(
        "insert into session (id, until) values (?, ?) on conflict (id) do update set until = excluded.until",
        (session, until),
    )
    tx.ledger.set_session(session, until)


def close_session(tx: Transaction, session: str) -> None:
    """`Store.close_session`."""
    if session in tx.ledger.sessions:
        tx.begin()
        tx.connection.execute("delete from session where id = ?", (session,))
        _forget_info(tx, session)
        tx.ledger.set_session(session, None)


def _forget_info(tx: Transaction, session: str) -> None:
    tx.connection.execute("delete from session_info where session = ?", (session,))


def expired(tx: Transaction, limit: int) -> list[str]:
    """`Store.expired`: the ledger knows."""
    now = tx.clock.now()
    sessions = tx.ledger.sessions
    over = [session for session, until in sessions.items() if until <= now]
    return (over + [session for session in tx.ledger.held if session not in sessions])[:limit]
