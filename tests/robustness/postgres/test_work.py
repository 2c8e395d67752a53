"""The PostgreSQL store at work: plans made on empty tables, what grows, what idling costs, whose clock counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_grpc.clock import SystemClock
from atlas_grpc.model import SECOND, Ask, Content, LogLine, Progress, Severity, State, Update
from atlas_grpc.stores.base import Filter
from atlas_grpc.stores.postgres import PostgresLimits, columns, rows
from atlas_grpc.stores.postgres import jobs as jobs_module
from tests.support import debian
from tests.support.postgres_bench import HOUR, Tools, finished

if TYPE_CHECKING:
    from tests.support.postgres_bench import Bench

pytestmark = pytest.mark.timeout(debian.TIMEOUT)

_MANY = 200_000
_GROW = """
with made as (
    insert into {schema}.job_specs
    select gen_random_uuid(), create_time, retention, -1, namespace, type, queue, null, null, payload, doc
    from {schema}.job_specs, generate_series(1, $1)
    where type = 'seed'
    returning id, create_time
)
insert into {schema}.job_states (id, version, xid, next_start, priority, place, ready, namespace, type, queue, doc)
select made.id, 1, pg_current_xact_id()::text::bigint, made.create_time, -1, 0, true, 'default', 'work', 'main', s.doc
from made, (select doc from {schema}.job_states where type = 'seed') s
"""
"""Ready jobs of type work behind all others, made from the one of type seed; only their documents are not their own."""


async def _scans(raw: Any, schema: str) -> tuple[int, int]:
    """Sequential and index scans of the job tables until now."""
    await raw.execute("select pg_stat_clear_snapshot()")
    row = await raw.fetchrow(
        "select sum(seq_scan)::bigint, sum(idx_scan)::bigint from pg_stat_user_tables"
        " where schemaname = $1 and relname in ('job_states', 'job_specs')",
        schema,
    )
    return row[0], row[1]


async def _all_statements(kit: Tools) -> None:
    """Each statement that a busy server needs, with something to do."""
    store = kit.store
    await kit.new(3)
    await kit.insert(kit.job(request_id="r"))
    await kit.insert(kit.job(request_id="r"))
    for asks in ([Ask("work", 2)], [Ask("work", 1, frozenset({"main"})), Ask("rest", 1)]):
        taken = await kit.claim(2, asks=asks)
        await store.report([Update(job.id, job.fence, Progress(1.0), (LogLine(Severity.INFO, "x"),)) for job in taken])
        await store.held("s1", 1)
        for job in taken:
            await kit.finish(job)
            await store.outputs([job.id])
            await store.logs(job.id, 0, 10)
    await store.due(10)
    await store.expired(10)
    head = await store.head()
    await store.changes(max(0, head - 1), 10)
    await store.find(Filter("default", states=frozenset({State.SUCCESS})), None, 5)
    await store.ahead((await kit.new(1))[0])


async def test_plans_that_were_made_on_empty_tables_stay_good(bench: Bench) -> None:
    store = await bench.store("&pool=1")
    kit = Tools(store)
    await kit.session()
    for _ in range(7):
        await _all_statements(kit)
    (seed,) = await kit.new(1, type="seed")
    raw = await bench.raw()
    await raw.execute(database_text(bench, _GROW.replace("$1", str(_MANY))), timeout=120)
    seq, idx = await _scans(raw, bench.schema)
    for _ in range(5):
        await _all_statements(kit)
    settled: list[tuple[int, int]] = []

    async def counted() -> bool:
        settled[:] = [await _scans(raw, bench.schema)]
        return settled[0][1] > idx + 100

    await kit.eventually(counted, "the statistics arrive")
    assert settled[0][0] == seq, "a table was read from end to end"
    assert await store.get([seed.id]) == [seed]


def database_text(bench: Bench, text: str) -> str:
    return text.replace("{schema}", f'"{bench.schema}"')


async def test_counts_of_many_are_estimates_and_oldest_is_exact(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await bench.store()
    kit = Tools(store)
    (old,) = await kit.new(1, queue="lonely", since=-HOUR)
    await kit.new(1, type="seed")
    raw = await bench.raw()
    await raw.execute(database_text(bench, _GROW.replace("$1", "50000")), timeout=120)
    monkeypatch.setattr(jobs_module, "_COUNTED_PAGES", 500)
    counts = await store.counts()
    assert 30_000 < counts.states[State.PENDING] < 70_000
    by_place = {(count.type, count.queue): count for count in counts.queues}
    assert by_place["work", "lonely"].oldest == old.next_start
    assert 30_000 < by_place["work", "main"].depth < 70_000


async def test_heartbeats_and_progress_write_nothing_that_grows(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    await kit.new(20)
    await kit.session()
    taken = await kit.claim(20)
    raw = await bench.raw()

    async def sizes() -> list[int]:
        return [
            await raw.fetchval("select pg_table_size($1::regclass)", f'"{bench.schema}".{table}')
            for table in ("worker_sessions", "job_outputs", "job_states")
        ]

    async def beat(times: int) -> None:
        for n in range(times):
            assert await store.renew(["s1"], HOUR) == [True]
            updates = [Update(job.id, job.fence, Progress(float(n), 100.0, f"step {n}")) for job in taken]
            assert all(await store.report(updates))

    await beat(50)
    before = await sizes()
    await beat(200)
    assert await sizes() == before


class _SteppedClock(SystemClock):
    """A host whose wall clock is wrong, and is set again and again."""

    step = -86_400 * SECOND

    def now(self) -> int:
        self.step = -self.step
        return super().now() + self.step


async def test_a_wrong_wall_clock_here_moves_nothing(bench: Bench) -> None:
    right, wrong = await bench.store(), await bench.store(clock=_SteppedClock())
    assert abs(right.now() - wrong.now()) < SECOND
    kit = Tools(wrong)
    (job,) = await kit.new(1, delay=HOUR)
    assert abs(job.next_start - right.now() - HOUR) < 10 * SECOND
    assert (await right.due(1))[0] == []
    await kit.session(ttl=HOUR)
    assert await right.expired(10) == []
    raw = await bench.raw()
    assert (
        abs(wrong.now() - await raw.fetchval("select (extract(epoch from clock_timestamp()) * 1e6)::bigint")) < SECOND
    )


async def test_texts_that_are_hard_to_quote_come_back(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    hard = ['"', "\\", 'a"b\\c', "{}", "null", "NULL", "", " ", ",", "é\n\t\x01", "\N{PILE OF POO}", "$1", "{schema}"]
    jobs = [kit.job(request_id=f"{text}{n}", labels={"x": text}) for n, text in enumerate(hard)]
    assert await store.insert(jobs) == jobs
    assert await store.get([job.id for job in jobs]) == jobs
    assert await store.insert([kit.job(request_id=job.spec.request_id) for job in jobs]) == jobs
    await store.open_session('s"\\', HOUR)
    taken = await store.claim('s"\\', "w\n", [Ask("work", 99)], 99)
    assert await store.held('s"\\', 99) == sorted(taken, key=lambda job: job.fence)
    for text, job in zip(hard, jobs, strict=True):
        page = await store.find(Filter("default", labels={"x": text}), None, 5)
        assert [found.id for found in page.jobs] == [job.id]


async def test_content_that_is_no_text_is_kept_as_it_is(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    contents = [Content(b"\xff\xfe"), Content(b'"\x00"'), Content(b""), Content(b"", ""), Content("é".encode())]
    jobs = [kit.job(payload=content) for content in contents]
    assert await store.insert(jobs) == jobs
    assert await store.get([job.id for job in jobs]) == jobs


async def test_a_batch_larger_than_a_statement(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    jobs = [kit.job(request_id=f"r{n % 2_400}") for n in range(2_500)]
    assert await store.insert(jobs) == [*jobs[:2_400], *jobs[:100]]
    await kit.session()
    taken = await kit.claim(3_000, asks=[Ask("work", 3_000)])
    taken += await kit.claim(3_000, asks=[Ask("work", 3_000)])
    taken += await kit.claim(3_000, asks=[Ask("work", 3_000)])
    assert len(taken) == 2_400
    ends = [finished(job, store) for job in taken]
    assert all(await store.put(ends, [job.version for job in taken]))
    assert await store.put([*ends[:1], *ends[:1]], [2, 2]) == [False, False]
    assert all(await store.delete(ends))
    assert sum((await store.counts()).states.values()) == 0


async def test_a_job_twice_in_one_put_is_moved_twice(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    (job,) = await kit.new(1)
    await kit.session()
    (taken,) = await kit.claim(1)
    end = finished(taken, store)
    assert await store.put([taken, end], [1, 2]) == [False, True]
    assert await store.get([job.id]) == [end]


async def test_logs_are_trimmed_by_number_and_by_size(bench: Bench) -> None:
    store = await bench.store(limits=PostgresLimits(max_log_lines=100, max_log_bytes=20_000))
    kit = Tools(store)
    job = await kit.running()
    raw = await bench.raw()
    kept = f'select count(*), coalesce(sum(length(message)), 0) from "{bench.schema}".job_logs'
    for n in range(40):
        lines = tuple(LogLine(Severity.INFO, f"{n}.{m}") for m in range(10))
        assert await store.report([Update(job.id, job.fence, None, lines)]) == [True]
    assert (await raw.fetchrow(kept))[0] <= 126
    for _ in range(40):
        assert await store.report([Update(job.id, job.fence, None, (LogLine(Severity.INFO, "x" * 2_000),))]) == [True]
        assert (await raw.fetchrow(kept))[1] <= 20_000
    (output,) = await store.outputs([job.id])
    lines = await store.logs(job.id, 0, 1_000)
    assert [line.offset for line in lines] == list(range(output.log_start, output.log_end))
    assert output.log_end == 440


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1))
@settings(max_examples=200)
def test_a_literal_is_what_the_database_would_write(values: list[str | None]) -> None:
    """Read back by the rules of PostgreSQL's array literals."""
    literal = columns.literal(values)
    assert literal.startswith(" ") == (len(set(values)) > 1)
    assert _read(literal) * (1 if literal.startswith(" ") else len(values)) == values


def _read(literal: str) -> list[str | None]:
    literal = literal.removeprefix(" ")
    assert (literal[0], literal[-1]) == ("{", "}")
    found: list[str | None] = []
    at = 1
    while at < len(literal) - 1:
        if literal[at] == '"':
            word, at = "", at + 1
            while literal[at] != '"':
                at += literal[at] == "\\"
                word += literal[at]
                at += 1
            at += 1
            found.append(word)
        else:
            assert literal[at : at + 4] == "null"
            at += 4
            found.append(None)
        assert literal[at] in ",}"
        at += 1
    return found


def test_what_can_be_an_id() -> None:
    assert rows.is_id("0198f3a0-0000-7000-8000-0123456789ab")
    for text in ("", "x", "0198F3A0-0000-7000-8000-0123456789AB", "0198f3a0-0000-7000-8000-0123456789ab\n"):
        assert not rows.is_id(text)


async def test_documents_that_are_there_already_are_not_written(bench: Bench) -> None:
    store = await bench.store()
    raw = await bench.raw()

    async def rows_as_they_lie() -> list[Any]:
        lying = await raw.fetch(f'select ctid, xmin, xmax, revision, key from "{bench.schema}".documents order by key')
        return [*lying, *await raw.fetch(f'select ctid, xmin, xmax, documents from "{bench.schema}".document_kinds')]

    # So many that a look at all of them for each of them would take longer than a statement may.
    documents = {f"{n}": b"%d" % n for n in range(9_999)}
    await store.put_documents("kind", documents)
    before = await rows_as_they_lie()
    await store.put_documents("kind", documents)
    await store.put_documents("kind", {"7": documents["7"]})
    assert await rows_as_they_lie() == before
    await store.put_documents("kind", documents | {"7": b"new", "new": b""})
    found = await raw.fetch(f'select key, revision from "{bench.schema}".documents where revision > 1')
    assert [tuple(row) for row in found] == [("7", 2)]
    assert await raw.fetchval(f'select documents from "{bench.schema}".document_kinds') == 10_000
