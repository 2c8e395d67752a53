"""The SQLite store beside what every store must do: its URL, what a person sees in it, what it keeps in memory."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from unittest.mock import ANY

import pytest
from msgspec.structs import replace

from atlas_grpc import lifecycle
from atlas_grpc.errors import ResumeTokenExpired
from atlas_grpc.model import Content, Failed, Failure, Progress, State, Succeeded, Update
from atlas_grpc.stores.base import Counts, Filter, WrongUrl
from atlas_grpc.stores.sqlite import (
    SqliteLimits,
    SqliteStore,
    batches,
    claims,
    from_url,
    output,
    reads,
    rows,
    writes,
)
from atlas_grpc.stores.sqlite.latest import Latest
from atlas_grpc.stores.sqlite.recent import Recent
from atlas_grpc.stores.sqlite.transaction import Transaction
from atlas_grpc.testing import FakeClock
from atlas_grpc.testing.stores._kit import Kit, ids
from tests.conformance.stores.factories_sqlite import SqliteFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from atlas_grpc.model import Job


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    store = SqliteStore(str(tmp_path / "jobs.db"), FakeClock(), SqliteLimits(feed_length=1_000))
    kit = Kit(SqliteFactory(), store)
    await store.open(kit.listener)
    yield kit
    await store.close()


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clock = FakeClock()
    assert from_url("sqlite:///jobs.db", clock).path == str(tmp_path / "jobs.db")
    assert from_url("sqlite:////var/lib/a%20b.db?sync=normal", clock).path == "/var/lib/a b.db"
    assert from_url("sqlite:///x.db", clock)._sync == "full"
    assert from_url("sqlite:///x.db?sync=full", clock)._sync == "full"
    assert from_url("sqlite:///x.db?sync=normal", clock)._sync == "normal"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite://jobs.db", "sqlite:///relative.db"),
        ("sqlite:jobs", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite:///folder/", "sqlite:///relative.db"),
        ("sqlite:///x.db#y", "sqlite:///relative.db"),
        ("sqlite://host/x.db", "sqlite:///relative.db"),
        ("postgresql:///x.db", "sqlite:///relative.db"),
        ("sqlite:///x.db?sync=off", "sync.*'off'"),
        ("sqlite:///x.db?sync=", "sync"),
        ("sqlite:///x.db?cache=1", "cache"),
    ],
)
def test_wrong_urls_name_what_is_wrong(url: str, named: str) -> None:
    with pytest.raises(WrongUrl, match=named):
        from_url(url, FakeClock())


async def test_a_person_can_read_it(kit: Kit) -> None:
    await kit.session()
    waits = (await kit.new(1, payload=Content(b'{"n": 1}'), type="wait", priority=3))[0]
    done = await kit.running(payload=Content('{"name": "é"}'.encode()))
    await kit.store.report([Update(done.id, done.fence, Progress(0.1 + 0.2, 1.0, "half"))])
    done = await kit.finish(done, Succeeded(Content(b'{"ok": true}')))
    broken = await kit.finish(await kit.running(max_attempts=1), Failed(Failure(2, "BOOM", "it went wrong")))
    raw_bytes = await kit.running(payload=Content(b"\x00\xff", "image/png"))
    await kit.finish(raw_bytes, Succeeded(Content(b"\x00", "")))
    with closing(sqlite3.connect(f"file:{kit.store.path}?mode=ro", uri=True)) as raw:
        raw.row_factory = sqlite3.Row
        rows = {row["id"]: dict(row) for row in raw.execute("select * from job")}
    assert rows[waits.id] == {
        "id": waits.id,
        "namespace": "default",
        "type": "wait",
        "queue": "main",
        "priority": 3,
        "state": "PENDING",
        "attempt": 0,
        "created": "2023-11-14T22:13:20.000Z",
        "next_start": "2023-11-14T22:13:20.000Z",
        "started": None,
        "finished": None,
        "payload": '{"n": 1}',
        "result": None,
        "error": None,
        "progress": None,
        "progress_message": None,
    }
    mine = rows[done.id]
    assert (mine["state"], mine["payload"], mine["result"]) == ("SUCCESS", '{"name": "é"}', '{"ok": true}')
    assert (mine["progress"], mine["progress_message"], mine["finished"]) == (0.1 + 0.2, "half", mine["started"])
    assert (rows[broken.id]["state"], rows[broken.id]["error"]) == ("FAILED", "BOOM: it went wrong")
    assert (rows[raw_bytes.id]["payload"], rows[raw_bytes.id]["result"]) == (None, None)


@pytest.mark.parametrize(
    "content",
    [Content(b""), Content(b"\xff\xfe\x00{"), Content(b"", ""), Content(b"\x00" * 10, "x/y"), Content(b"null")],
    ids=repr,
)  # fmt: skip
async def test_any_content_comes_back(kit: Kit, content: Content) -> None:
    """Whatever the validators in front let through."""
    job = await kit.running(payload=content)
    done = await kit.finish(job, Succeeded(content))
    kit.store._recent.clear()
    assert await kit.get(done) == done


async def test_records_in_memory_are_the_stored_ones(kit: Kit) -> None:
    """What get answers from memory, the file answers too."""
    big = Content(b'"' + b"x" * 10_000 + b'"')
    jobs = await kit.new(3) + await kit.new(1, payload=big)
    await kit.session()
    (taken,) = await kit.claim(1)
    jobs[1] = await kit.step(jobs[1])
    jobs[3] = await kit.step(jobs[3])
    jobs[0] = await kit.finish(taken, Succeeded(big))
    await kit.store.delete([jobs[2]])
    names = [job.id for job in jobs]
    first = await kit.store.get(names)
    kit.store._recent.clear()
    assert await kit.store.get(names) == first == [jobs[0], jobs[1], None, jobs[3]]


async def test_several_steps_of_a_job_in_one_batch(kit: Kit) -> None:
    (job,) = await kit.new(1)
    second = lifecycle.request_cancel(job, kit.store.now(), "why", 0)
    third = lifecycle.new_run(second, kit.store.now())
    steps = [second, third, lifecycle.cancelled(job, kit.store.now())]
    assert await kit.store.put(steps, [1, 2, 1]) == [True, True, False]
    kit.store._recent.clear()
    assert await kit.get(job) == third
    assert [change.job for change in await kit.feed(0)] == [third]
    assert await kit.store.counts() == Counts(dict.fromkeys(State, 0) | {State.PENDING: 2}, ANY, ANY)
    await kit.session()
    assert ids(await kit.claim()) == [job.id]


async def test_a_record_is_in_doubt_while_it_is_committed(kit: Kit) -> None:
    """A reader of the file may know more than the memory then."""
    (job,) = await kit.new(1)
    recent, names = Recent(10), [job.id]
    first, second, third = Tx([job]), Tx([replace(job, version=2)]), Tx([replace(job, version=3)])
    recent.settle(first)
    assert recent.get(names) == [job]
    recent.doubt(second)
    assert recent.get(names) is None
    recent.doubt(third)
    recent.settle(second)
    assert recent.get(names) is None, "the third is still under way"
    recent.trust(third)
    assert recent.get(names) == second.written, "it was rolled back"
    recent.settle(Tx([], gone={job.id}))
    assert recent.get(names) is None


class Tx(Transaction):
    """What a transaction did."""

    def __init__(self, written: list[Job], gone: Iterable[str] = ()) -> None:
        self.written, self.kept = written, {job.id: job for job in written}
        self.large, self.gone = set(), set(gone)


async def test_many_of_everything(kit: Kit) -> None:
    """Batches beyond every size that statements are prepared for."""
    jobs = [kit.job(request_id=f"r{n}") for n in range(1_347)]
    assert await kit.store.insert(jobs) == jobs
    kit.store._recent.clear()
    assert await kit.store.get([job.id for job in jobs]) == jobs
    assert await kit.store.insert([kit.job(request_id=f"r{n}") for n in range(1_347)]) == jobs
    await kit.session()
    taken = await kit.claim(1_347)
    assert ids(taken) == ids(jobs)
    assert len(await kit.store.held("s1", 5_000)) == 1_347
    updates = [Update(job.id, job.fence, Progress(1.0)) for job in taken]
    assert all(await kit.store.report(updates))
    assert len({output.progress for output in await kit.store.outputs([job.id for job in taken])}) == 1
    with pytest.raises(ResumeTokenExpired):
        await kit.store.changes(0, 10)
    assert await kit.store.delete(taken) == [True] * 1_347
    counts = await kit.store.counts()
    assert (sum(counts.states.values()), counts.queues) == (0, ())


def statements() -> dict[str, str]:
    """Every statement that reads or writes jobs, by its name."""
    found = {}
    for module in (batches, claims, output, reads, rows, writes):
        for name, text in vars(module).items():
            if (
                isinstance(text, str)
                and re.match(r"select|update|insert|delete", text)
                and name not in {"_JOBS", "_NESTED"}
            ):
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = text
    listing = reads._listing(Filter("n", states=frozenset(State), types=frozenset({"t"})), "x", "a", 5)
    return found | {"reads._listing": listing[0]}


@pytest.mark.parametrize("name", sorted(statements()))
async def test_no_statement_looks_at_all_jobs(kit: Kit, name: str) -> None:
    """Whatever the planner thinks of tables whose sizes it does not know."""
    await kit.new(3)
    sql = statements()[name]
    marks = {"rows._UPDATE_STATE": rows._UPDATE_STATE_MARKS, "rows._INSERT_STATE": rows._INSERT_STATE_MARKS}
    marks |= {"rows._INSERT_SPEC": rows._INSERT_SPEC_MARKS}
    if " values ?*" in sql:
        columns = sql.partition("(")[2].partition(")")[0].count(",") + 1
        sql = sql.replace("?*", marks.get(name, f"({','.join('?' * columns)})"))
    elif name in marks:
        sql = sql.replace("?*", marks[name])
    else:
        sql = sql.replace("?*", "?, ?")
    with closing(sqlite3.connect(kit.store.path)) as raw:
        count = max([sql.count("?"), *map(int, re.findall(r"[?]([0-9]+)", sql))])
        numbered = re.search(r"[?][0-9]", sql) is not None
        values = [0] * (max(map(int, re.findall(r"[?]([0-9]+)", sql))) if numbered else count)
        plan = [row[3] for row in raw.execute(f"explain query plan {sql}", values)]
    for step in plan:
        assert not re.match(r"SCAN (s|p|o|state|spec|feed|output|log|name)\b", step), plan
        assert "AUTOMATIC" not in step, plan


def test_latest_is_bounded() -> None:
    latest: Latest[int] = Latest(10)
    for n in range(1_000):
        latest.set(str(n), n)
        latest.age()
        assert all(latest.get(str(m)) == m for m in range(max(0, n - 9), n + 1))
        assert len(latest._young) + len(latest._old) <= 22
    latest.drop("999")
    assert latest.get("999") is None
