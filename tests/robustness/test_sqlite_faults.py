"""A SQLite store meets full disks, faults, other programs and files that are not its own."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock
from atlas_grpc.engine.engine import Engine
from atlas_grpc.errors import AtlasError, FailedPrecondition, Internal, ResumeTokenExpired, StoreFull, Unavailable
from atlas_grpc.model import Content, Progress, State, Update
from atlas_grpc.observe.metrics import Metrics
from atlas_grpc.stores.base import MAX_DOCUMENTS, MAX_INFO, Filter
from atlas_grpc.stores.sqlite import SqliteLimits, SqliteStore, connection, readers, schema, writer, writes
from atlas_grpc.testing import FakeClock
from atlas_grpc.testing.stores._kit import HOUR, Kit
from tests.conformance.stores.factories_sqlite import SqliteFactory
from tests.support.vitals import vital
from tests.support.waiting import until
from tests.unit.engine.world import FixedCatalog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atlas_grpc.model import Job
    from atlas_grpc.stores.sqlite.transaction import Transaction

BIG = Content(b'"' + b"x" * 20_000 + b'"')


@asynccontextmanager
async def opened(path: Path, **limits: int) -> AsyncIterator[Kit]:
    store = SqliteStore(str(path), SystemClock(), SqliteLimits(**limits))
    kit = Kit(SqliteFactory(), store)
    await store.open(kit.listener)
    try:
        yield kit
    finally:
        await store.close()


async def on_the_writer(kit: Kit, sql: str) -> Any:
    def run(tx: Transaction) -> Any:
        return tx.connection.execute(sql).fetchone()

    return await kit.store._writer.do(run)


async def fill(kit: Kit) -> list[Job]:
    """Inserts until there is no room; what was acknowledged."""
    kept: list[Job] = []
    for _ in range(5_000):
        try:
            kept += await kit.new(10, payload=BIG)
        except StoreFull:
            return kept
    raise AssertionError("it takes everything")


async def reads_go_on(kit: Kit, kept: list[Job]) -> None:
    kit.store._recent.clear()
    assert await kit.store.get([job.id for job in kept]) == kept
    page = await kit.store.find(Filter("default"), None, 5)
    assert list(page.jobs) == kept[:-6:-1]
    counts = await kit.store.counts()
    assert counts.states[State.PENDING] == len(kept)
    assert (await kit.store.changes(await kit.store.head(), 10))[0] == []
    assert vital(kit.store, "atlas_sqlite_disk_full") == 1


async def writes_go_on(kit: Kit, kept: list[Job]) -> None:
    """As if nothing had been, with what was acknowledged."""
    (job,) = await kit.new(1)
    await kit.session()
    taken = await kit.claim(5)
    assert [one.id for one in taken] == [one.id for one in kept[:5]]
    await kit.finish(taken[0])
    changes = await kit.feed(0)
    assert len(changes) == len(kept) + 1
    assert await kit.get(job) == job
    assert (await kit.store.counts()).states[State.PENDING] == len(kept) + 1 - 5 + 1
    assert await on_the_writer(kit, "pragma integrity_check") == ("ok",)
    assert vital(kit.store, "atlas_sqlite_disk_full") == 0


async def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as kit:
        (pages,) = await on_the_writer(kit, "pragma page_count")
        await on_the_writer(kit, f"pragma max_page_count = {pages + 200}")
        kept = await fill(kit)
        for _ in range(3):
            with pytest.raises(StoreFull) as refused:
                await kit.new(10, payload=BIG)
            assert refused.value.retry_after
        await reads_go_on(kit, kept)
        await on_the_writer(kit, "pragma max_page_count = 1000000")
        await writes_go_on(kit, kept)


@pytest.fixture
def small_disk(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and os.getuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """Really full: the WAL cannot grow, nor can a checkpoint make room."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    async with opened(small_disk / "jobs.db") as kit:
        kept = await fill(kit)
        for _ in range(3):
            with pytest.raises(StoreFull):
                await kit.new(100, payload=BIG)
        await reads_go_on(kit, kept)
        ballast.unlink()
        await writes_go_on(kit, kept)


FILE_SIZE_CHILD = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.robustness.test_sqlite_faults import fill, opened, reads_go_on, writes_go_on
async def main():
    async with opened(Path({path!r})) as kit:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, hard))
        kept = await fill(kit)
        await reads_go_on(kit, kept)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await writes_go_on(kit, kept)
        print("kept", len(kept))
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    code = FILE_SIZE_CHILD.format(root=str(Path.cwd()), path=str(tmp_path / "jobs.db"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10


async def together(kit: Kit, *operations: Callable[[Transaction], Any]) -> list[Any]:
    """Runs operations in one transaction, as the writer is held up while they are queued."""
    held, go = threading.Event(), threading.Event()

    def hold(_tx: Transaction) -> None:
        held.set()
        go.wait()

    writer = kit.store._writer
    first = asyncio.ensure_future(writer.do(hold))
    await asyncio.to_thread(held.wait)
    tasks = [asyncio.ensure_future(writer.do(operation)) for operation in operations]
    await asyncio.sleep(0)
    go.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def inserting(job: Job) -> Callable[[Transaction], Any]:
    return lambda tx: writes.insert(tx, [job])


async def test_a_failed_operation_spares_its_neighbours(tmp_path: Path) -> None:
    def broken(tx: Transaction) -> None:
        tx.begin()
        tx.connection.execute("delete from state")
        raise ZeroDivisionError

    async with opened(tmp_path / "jobs.db") as kit:
        one, two, same = kit.job(), kit.job(), kit.job()
        answers = await together(kit, inserting(one), broken, inserting(two), inserting(one), inserting(same))
        assert answers[0] == [one]
        assert isinstance(answers[1], ZeroDivisionError)
        assert answers[2] == [two]
        assert isinstance(answers[3], Internal), "an id that is taken"
        assert answers[4] == [same]
        assert await kit.store.get([one.id, two.id, same.id]) == [one, two, same]
        assert kit.listener.written == [one, two, same], "told once, in order"
        assert (await kit.store.counts()).states[State.PENDING] == 3
        assert [change.job for change in await kit.feed(0)] == [one, two, same]


async def test_what_a_failed_operation_did_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as kit:
        ghost = kit.job(request_id="r")

        def half(tx: Transaction) -> None:
            writes.insert(tx, [ghost])
            raise ZeroDivisionError

        answers = await together(kit, half)
        assert isinstance(answers[0], ZeroDivisionError)
        assert await kit.put(lifecycle.cancelled(ghost, kit.store.now()), ghost.version) is False
        assert await kit.store.delete([ghost]) == [False]
        assert await kit.store.get([ghost.id]) == [None]
        assert kit.listener.written == []
        named = kit.job(request_id="r")
        assert await kit.insert(named) == [named]


async def test_the_writer_survives_what_nobody_expects(tmp_path: Path) -> None:
    def worse(_tx: Transaction) -> None:
        raise SystemExit

    async with opened(tmp_path / "jobs.db") as kit:
        (job,) = await kit.new(1)
        answers = await together(kit, lambda _tx: None, worse, inserting(kit.job()))
        assert any(isinstance(answer, Internal) for answer in answers)
        (other,) = await kit.new(1)
        assert await kit.store.get([job.id, other.id]) == [job, other]


async def test_somebody_writes_in_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_BUSY_SECONDS", 0.05)
    async with opened(tmp_path / "jobs.db") as kit:
        (job,) = await kit.new(1)
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as shell:
            shell.execute("begin immediate")
            with pytest.raises(Unavailable) as refused:
                await kit.new(1)
            assert refused.value.retry_after
            assert await kit.get(job) == job
            shell.execute("rollback")
        await kit.new(1)


async def test_a_lost_connection_is_replaced(tmp_path: Path) -> None:
    """As after an I/O error: another connection, and what was counted is counted anew."""

    def in_doubt(tx: Transaction) -> None:
        tx.begin()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    async with opened(tmp_path / "jobs.db") as kit:
        kept = await kit.new(3)
        await kit.session()
        (taken,) = await kit.claim(1)
        answers = await together(kit, inserting(kit.job()), in_doubt)
        assert all(isinstance(answer, Unavailable) and answer.retry_after for answer in answers)
        (following,) = await kit.claim(1)
        assert (following.id, following.fence > taken.fence) == (kept[1].id, True)
        await kit.finish(taken)
        assert await kit.store.held("s1", 10) == [following]


async def test_a_close_that_is_cancelled_still_happens(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        (job,) = await kit.new(1)
        closing_task = asyncio.ensure_future(kit.store.close())
        await asyncio.sleep(0)
        closing_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_task
        await kit.store.close()
        async with opened(path) as again:
            assert await again.get(job) == job


async def test_the_wal_is_cut_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_REST", 0.02)
    async with opened(tmp_path / "jobs.db") as kit:
        await kit.new(50)
        await kit.hinted(lambda: kit.store.wal_size() == 0, "the WAL is cut")
        (job,) = await kit.new(1)
        assert kit.store.wal_size() > 0
        assert await kit.get(job) == job


async def test_closing_does_what_waits(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as kit:
        jobs = [kit.job() for _ in range(20)]
        inserts = [asyncio.ensure_future(kit.store.insert([job])) for job in jobs]
        await asyncio.sleep(0)
        await kit.store.close()
        assert await asyncio.gather(*inserts) == [[job] for job in jobs]
        with pytest.raises(Unavailable):
            await kit.new(1)
        with pytest.raises(Unavailable):
            await kit.store.get(["x"])
    assert sorted(os.listdir(tmp_path)) == ["jobs.db", "jobs.db.lock"], "one file, and the lock's"  # noqa: PTH208


HOLDER = """
import asyncio, sys
from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock
from atlas_grpc.engine.engine import Engine
from atlas_grpc.stores.sqlite import SqliteStore
async def main():
    store = SqliteStore(sys.argv[1], SystemClock())
    await store.open(None)
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_second_server_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    (tmp_path / "link.db").symlink_to(path)
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:  # noqa: ASYNC220 - nothing else runs
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for name in ("jobs.db", "link.db"):
            with pytest.raises(
                FailedPrecondition, match=rf"{path} is in use by another server \(process {holder.pid}\)"
            ):
                async with opened(tmp_path / name):
                    pass
        holder.kill()
    async with opened(path) as kit:
        with pytest.raises(FailedPrecondition, match=f"process {os.getpid()}"):
            async with opened(path):
                pass
        await kit.new(1)


async def test_a_file_of_a_newer_atlas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        await kit.new(1)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("pragma user_version = 1000")
    before = path.read_bytes()
    with pytest.raises(
        FailedPrecondition, match=rf"newer Atlas \(schema 1000; this one knows {len(schema.migrations())}\)"
    ):
        async with opened(path):
            pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", ["text", "database"])
async def test_other_files_are_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "other.db"
    if what == "text":
        path.write_text("Dear diary, " * 1_000)
    else:
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("create table mine (x)")
    before = path.read_bytes()
    with pytest.raises(FailedPrecondition, match="is not a file of Atlas"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        await kit.new(500)
    data = bytearray(path.read_bytes())
    data[5 * connection.PAGE_SIZE : 30 * connection.PAGE_SIZE] = b"\x07" * (25 * connection.PAGE_SIZE)
    path.write_bytes(data)
    with pytest.raises(Internal, match="damaged"):
        async with opened(path):
            pass


async def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be used"):
        async with opened(tmp_path / "no" / "jobs.db"):
            pass


async def test_a_failed_migration_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        (job,) = await kit.new(1)
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, "create table extra (x);\ncreate table state (x);\n"])
    with pytest.raises(AtlasError):
        async with opened(path):
            pass
    monkeypatch.setattr(schema, "migrations", lambda: [*known, "create table extra (x);\n"])
    async with opened(path) as kit:
        assert await kit.get(job) == job
        assert await on_the_writer(kit, "pragma user_version") == (len(known) + 1,)
        assert await on_the_writer(kit, "select count(*) from extra") == (0,)


async def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        await kit.new(3)
        await kit.session()
        done = [await kit.finish(job) for job in await kit.claim(2)]
    with closing(sqlite3.connect(path)) as raw:
        for later in ("index state_finished", "table session_info", "table document"):
            raw.execute(f"drop {later}")
        raw.execute("pragma user_version = 1")
    async with opened(path, max_finished=1) as kit:
        assert await on_the_writer(kit, "pragma user_version") == (len(schema.migrations()),)

        async def forgotten() -> bool:
            return await kit.store.get([job.id for job in done]) == [None, done[1]]

        await kit.new(1)
        await kit.eventually(forgotten, "the one that ended first is gone")
        assert await kit.store.sessions() == [("s1", b"")]
        await kit.session(info=b"told")
        await kit.store.put_documents("kind", {"a": b"1"})
    async with opened(path) as kit:
        assert await kit.store.sessions() == [("s1", b"told")]
        assert await kit.store.documents("kind") == {"a": b"1"}


async def test_documents_that_are_there_already_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    documents = {f"{n}": b"x" * n for n in range(1_000)}
    async with opened(path) as kit:
        await kit.store.put_documents("kind", documents)
        stats = kit.store._writer.stats
        before, wal = stats.commits.count, kit.store.wal_size()
        await kit.store.put_documents("kind", documents)
        await kit.store.put_documents("kind", {"7": documents["7"]})
        with pytest.raises(StoreFull):
            await kit.store.put_documents("kind", {"7": b"new"} | {f"more {n}": b"" for n in range(MAX_DOCUMENTS)})
        assert (stats.commits.count, stats.rollbacks) == (before, 0)
        assert kit.store.wal_size() <= wal
        await kit.store.put_documents("kind", documents | {"7": b"new"})
        assert stats.commits.count == before + 1
        assert await on_the_writer(kit, "select data from document where key = '7'") == (b"new",)


async def test_a_heartbeat_does_not_write_the_info_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as kit:
        await kit.session("s", info=b"x" * MAX_INFO)
        before = kit.store.wal_size()
        for _ in range(10):
            assert await kit.store.renew(["s"], HOUR) == [True]
        assert kit.store.wal_size() - before < MAX_INFO * 5


async def test_a_copy_brought_back_repeats_no_number(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with opened(path) as kit:
        await kit.new(3)
        before = await kit.store.head()
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        await kit.session()
        (lost,) = await kit.claim(1)
        lost_head = await kit.store.head()
    path.unlink()
    copy.rename(path)
    async with opened(path) as kit:
        assert await kit.store.changes(before, 10) == ([], before)
        await kit.session()
        (taken,) = await kit.claim(1)
        await kit.new(3)
        with pytest.raises(ResumeTokenExpired):
            await kit.store.changes(lost_head, 10)
        assert (taken.id, taken.fence > lost.fence) == (lost.id, True)
        assert (await kit.feed(before))[0].job == taken


async def test_what_repeats_does_not_grow(tmp_path: Path) -> None:
    """Heartbeats, progress, and a feed at its bound."""
    async with opened(tmp_path / "jobs.db", feed_length=500, max_log_lines=10) as kit:
        job = await kit.running()
        for _ in range(200):
            job = await kit.step(job)
        for _ in range(600):
            await asyncio.gather(kit.step(await kit.get(job)), kit.store.renew(["s1"], HOUR))
        (pages,) = await on_the_writer(kit, "pragma page_count")
        head = await kit.store.head()
        for turn in range(300):
            await kit.store.renew(["s1"], HOUR)
            assert await kit.store.report([Update(job.id, job.fence, Progress(turn, 300.0, "going on"))]) == [True]
        assert await kit.store.head() == head
        assert await on_the_writer(kit, "pragma page_count") == (pages,)
        (kept,) = await on_the_writer(kit, "select count(*) from feed")
        assert kept <= 500 + 500 // 16 + 2
        assert await on_the_writer(kit, "select count(*) from output") == (1,)


async def test_an_idle_server_asks_little_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []

    def traced(connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
        def made(*arguments: Any) -> sqlite3.Connection:
            new = connect(*arguments)
            new.set_trace_callback(statements.append)
            return new

        return made

    monkeypatch.setattr(readers, "connect_reader", traced(connection.connect_reader))
    monkeypatch.setattr(writer, "connect_writer", traced(connection.connect_writer))
    clock = FakeClock()
    store = SqliteStore(str(tmp_path / "jobs.db"), clock)
    engine = Engine(store, FixedCatalog(), clock=clock, rng=random.Random(1), metrics=Metrics())
    await engine.start()
    try:
        for _ in range(3):  # the first sweeps may still prepare something
            await one_second(clock, store)
        statements.clear()
        commits = store._writer.stats.commits.count
        for _ in range(10):
            await one_second(clock, store)
        assert store._writer.stats.commits.count == commits
        assert 0 < len(statements) <= 5 * 10, statements
    finally:
        await engine.stop()


async def one_second(clock: FakeClock, store: SqliteStore) -> None:
    """A second of an engine's life, until the store has answered all."""
    done = store._writer.stats.batches.sum
    await clock.advance(1.0)
    with suppress(TimeoutError):  # one in which it asked nothing
        await until(lambda: store._writer.stats.batches.sum > done, 1)
    await until(lambda: store.queued == (0, 0))
    # Those who were answered ask the next thing before a question that comes later is answered.
    for _ in range(5):
        await store._writer.do(lambda _tx: None)
        await asyncio.gather(*(store._readers.do(lambda _connection: None) for _ in range(2)))
