"""Jobs in Redis or Valkey: one atomic script for each operation, and indexes that follow from the jobs.

Why it looks like this. Redis runs one script at a time, so a script *is* a transaction, as long as it does all of a
step: the job, every index that it stands in, the counts, the feed and the hint to other servers change together or not
at all, in memory, in the append-only file and on replicas. Batches come in one call, and their writes are gathered by
key, so that many jobs are written by a dozen commands. A script must not run long, because everybody waits meanwhile:
none is given more than some dozens of jobs, or a megabyte.

All keys begin with `{prefix}:`, one hash tag, so that a cluster keeps them in one slot:

    spec:<id>  job:<id>                a job: what never changes, and what each step replaces      (records.py)
    out:<id>  log:<id>                 progress and the extent of the log; its lines
    list:<namespace>                   ZSET: all ids, in order
    names:<namespace>                  HASH: request id → job
    ready:<priority>:<place>           ZSET: a line of ready jobs, score = ready since
    prios:<place>  places              priorities in use; places in use (a type, or a type and a queue)
    due  finished                      ZSETs: timers by instant; finished jobs by the time of their end
    sessions  held:<session>           ZSET by expiry; SET of running jobs
    info:<session>                     what the worker tells of itself
    docs:<kind>                        HASH: documents by key
    counts  head  fence  server        numbers by state; the last change; the last token; the feed's epoch
    feed                               STREAM: which job changed to which version

Microseconds and a priority do not fit into one exact score, hence a line for each priority. Nothing has a time to
live: a lease that the server may forget by itself is a lease whose job is orphaned. For the same reason the server must
not evict (`maxmemory-policy noeviction`), which is checked whenever a connection is made.

- `wire`, `pool`, `link`: connections, who may be connected to, and what is true after a reconnect.
- `hints`: what others wrote.  `batches`, `records`, `lua/`: what is said to the server.  `store`, `documents`: the
  operations.
- `audit`: what repairs indexes that something else damaged.

What each durability setting promises, what a failover can lose, and what a job weighs: docs/stores/redis.md.
Prior art: Asynq, BullMQ, Faktory, streaq. Open: reads could go to replicas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .audit import Findings
from .faults import UnfitServer
from .store import RedisLimits, RedisStore
from .url import parse

if TYPE_CHECKING:
    from ...clock import Clock

__all__ = [
    "Findings",
    "RedisLimits",
    "RedisStore",
    "UnfitServer",
    "from_url",
]


def from_url(url: str, clock: Clock, limits: RedisLimits | None = None) -> RedisStore:
    """The store that a URL names, not opened yet. Raises WrongUrl, which names the part that is wrong.

    `url.py` has the forms of the URL; options are `prefix`, `pool`, `timeout`, `connect_timeout`, `wait` and `audit`.
    """
    return RedisStore(parse(url), clock, limits)
