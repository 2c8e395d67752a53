"""The schema of the PostgreSQL store: migrations, what a person sees in psql, who may open it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.errors import Unavailable
from atlas_grpc.model import SECOND, Ask, Content, Failed, Failure, LogLine, Progress, Severity, Succeeded, Update
from atlas_grpc.stores.base import UnsuitableDatabase
from atlas_grpc.stores.postgres import database, from_url, migrate, migrations, verify
from atlas_grpc.stores.postgres.options import parse
from tests.support import debian, postgres
from tests.support.postgres_bench import HOUR, Listener, Tools

if TYPE_CHECKING:
    from tests.support.postgres_bench import Bench

pytestmark = pytest.mark.timeout(debian.TIMEOUT)


def url_of(bench: Bench, more: str = "") -> str:
    return f"{bench.url}?schema={bench.schema}{more}"


async def test_a_dry_run_shows_and_changes_nothing(bench: Bench) -> None:
    planned = await migrate(url_of(bench), dry_run=True)
    assert [step.version for step in planned] == list(range(1, len(planned) + 1))
    assert f'create table "{bench.schema}".job_specs' in planned[0].sql
    raw = await bench.raw()
    assert await raw.fetchval("select to_regnamespace($1)", bench.schema) is None
    assert await migrate(url_of(bench)) == planned
    assert await migrate(url_of(bench)) == []
    assert await migrate(url_of(bench), dry_run=True) == []


@pytest.fixture
async def first_schema(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema is of the first version, with a worker's session and a job in it."""
    steps = migrations.all_migrations
    monkeypatch.setattr(migrations, "all_migrations", lambda schema: steps(schema)[:1])
    assert [step.name for step in await migrate(url_of(bench))] == ["jobs"]
    monkeypatch.undo()
    raw = await bench.raw()
    await raw.execute(
        f'insert into "{bench.schema}".worker_sessions (session, expire_time) values ($1, $2)', "old", 2**53
    )


@pytest.mark.usefixtures("first_schema")
async def test_the_first_schema_is_brought_up_to_date(bench: Bench) -> None:
    planned = await migrate(url_of(bench), dry_run=True)
    assert [(step.version, step.name) for step in planned] == [(2, "documents")]
    assert f'create table "{bench.schema}".documents' in planned[0].sql
    raw = await bench.raw()
    assert await raw.fetchval("select to_regclass($1)", f"{bench.schema}.documents") is None, (
        "a dry run changes nothing"
    )
    assert await verify(url_of(bench)) == ["migration 0002 (documents) was not run"]
    assert await migrate(url_of(bench)) == planned
    assert await migrate(url_of(bench)) == []
    assert await verify(url_of(bench)) == []
    store = await bench.store("&migrate=false")
    assert await store.sessions() == [("old", b"")]
    await store.put_documents("kind", {"a": b"1"})
    assert await store.documents("kind") == {"a": b"1"}
    (job,) = await Tools(store).new(1)
    assert await store.get([job.id]) == [job]


@pytest.mark.usefixtures("first_schema")
async def test_a_server_brings_the_first_schema_up_to_date(bench: Bench) -> None:
    with pytest.raises(UnsuitableDatabase, match="atlas db migrate"):
        await bench.store("&migrate=false")
    stores = await asyncio.gather(bench.store(), bench.store())
    for store in stores:
        assert await store.sessions() == [("old", b"")]
    assert await verify(url_of(bench)) == []


@pytest.mark.usefixtures("first_schema")
async def test_the_command_migrates_from_the_first_schema(bench: Bench) -> None:
    async def atlas(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "atlas_grpc.cli", "db", *arguments, "--store", url_of(bench)]
        done = await asyncio.to_thread(
            subprocess.run, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return done.returncode, done.stdout

    code, said = await atlas("migrate", "--dry-run", "--show-sql")
    assert code == 0
    assert "would run 0002 documents" in said
    assert f'create table "{bench.schema}".documents' in said
    assert "0001" not in said
    assert await atlas("verify") == (1, "migration 0002 (documents) was not run\n")
    assert await atlas("migrate") == (0, "ran 0002 documents\n")
    assert await atlas("migrate") == (0, "the schema is up to date\n")
    assert await atlas("verify") == (0, "the schema is as it should be\n")


async def test_servers_that_start_together_migrate_once(bench: Bench) -> None:
    ran = await asyncio.gather(*(migrate(url_of(bench)) for _ in range(4)))
    assert sum(bool(steps) for steps in ran) == 1
    raw = await bench.raw()
    versions = await raw.fetch(f'select version, name from "{bench.schema}".migrations order by version')
    assert [tuple(row) for row in versions] == [(1, "jobs"), (2, "documents")]
    stores = [from_url(url_of(bench), SystemClock()) for _ in range(2)]
    await asyncio.gather(*(store.open(Listener()) for store in stores))
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_server_that_waited_for_another_to_migrate_sees_what_that_one_made(bench: Bench) -> None:
    """It had looked before it waited, and PostgreSQL remembers within a transaction what is not there."""
    options = parse(url_of(bench))
    first, other, looking = await bench.raw(), await bench.raw(), await bench.raw()
    assert await migrations._version(other, options) == 0
    async with first.transaction():
        await first.execute("select pg_advisory_xact_lock(hashtextextended('atlas ' || $1, 0))", bench.schema)
        waiting = asyncio.ensure_future(migrations.bring_up_to_date(other, options))
        while not await looking.fetchval("select count(*) from pg_locks where locktype = 'advisory' and not granted"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        assert await migrations.bring_up_to_date(first, options)
    assert await waiting == []


async def test_a_schema_that_is_newer_is_refused(bench: Bench) -> None:
    await migrate(url_of(bench))
    raw = await bench.raw()
    await raw.execute(f"insert into \"{bench.schema}\".migrations values (999, 'of the future')")
    for call in (
        migrate(url_of(bench)),
        verify(url_of(bench)),
        from_url(url_of(bench), SystemClock()).open(Listener()),
    ):
        with pytest.raises(UnsuitableDatabase, match="version 999"):
            await call


async def test_a_store_that_may_not_migrate_says_what_to_do(bench: Bench) -> None:
    store = from_url(url_of(bench, "&migrate=false"), SystemClock())
    with pytest.raises(UnsuitableDatabase, match="atlas db migrate"):
        await store.open(Listener())
    await migrate(url_of(bench))
    await store.open(Listener())
    await store.close()


async def test_a_failed_migration_leaves_nothing(bench: Bench) -> None:
    raw = await bench.raw()
    await raw.execute(f'create schema "{bench.schema}"; create table "{bench.schema}".job_logs ()')
    with pytest.raises(Exception, match="failed"):
        await migrate(url_of(bench))
    tables = await raw.fetch("select tablename from pg_tables where schemaname = $1", bench.schema)
    assert [row["tablename"] for row in tables] == ["job_logs"]


async def test_verify_tells_what_differs(bench: Bench) -> None:
    assert await verify(url_of(bench)) == [
        "migration 0001 (jobs) was not run",
        "migration 0002 (documents) was not run",
    ]
    await migrate(url_of(bench))
    assert await verify(url_of(bench)) == []
    raw = await bench.raw()
    await raw.execute(f'create index of_the_operator on "{bench.schema}".job_specs (create_time)')
    assert await verify(url_of(bench)) == []
    await raw.execute(
        f'drop index "{bench.schema}".job_states_due;'
        f'alter table "{bench.schema}".worker_sessions alter column expire_time drop not null'
    )
    assert await verify(url_of(bench)) == [
        "column worker_sessions.expire_time differs: bigint instead of bigint not null",
        "index job_states_due is missing",
    ]
    assert await raw.fetchval("select count(*) from pg_namespace where nspname like '%verify'") == 0


async def test_an_old_server_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MINIMUM_VERSION", 99)
    with pytest.raises(UnsuitableDatabase, match="PostgreSQL 99 or newer is needed, and this is"):
        await from_url(url_of(bench), SystemClock()).open(Listener())


async def test_another_encoding_is_refused(server: postgres.PostgresServer, bench: Bench) -> None:
    raw = await bench.raw()
    await raw.execute(f"create database latin_{bench.schema} encoding 'LATIN1' template template0")
    with pytest.raises(UnsuitableDatabase, match=r"UTF8.*LATIN1"):
        await migrate(server.url(f"latin_{bench.schema}"))
    await raw.execute(f"drop database latin_{bench.schema}")


async def test_a_role_without_privileges_is_enough(server: postgres.PostgresServer, bench: Bench) -> None:
    raw = await bench.raw()
    role = f"app_{bench.schema}"
    await raw.execute(f'create role {role} login; create schema "{bench.schema}" authorization {role}')
    store = await bench.store(url=server.url(user=role))
    (job,) = await Tools(store).new(1)
    assert await store.get([job.id]) == [job]
    assert (await store.counts()).size > 0
    await raw.execute(f'drop schema "{bench.schema}" cascade; drop role {role}')


async def test_servers_need_not_own_the_schema(server: postgres.PostgresServer, bench: Bench) -> None:
    """The grants are those of the docs."""
    await migrate(url_of(bench))
    page = Path(__file__).parents[3] / "docs" / "stores" / "postgresql.md"
    grants = re.findall(r"^    (grant .*;)$", page.read_text("utf-8"), re.MULTILINE)
    assert len(grants) == 3
    role = f"server_{bench.schema}"
    raw = await bench.raw()
    await raw.execute(f"create role {role} login")
    for grant in grants:
        await raw.execute(grant.replace("schema atlas", f"schema {bench.schema}").replace("atlas_server", role))
    store = await bench.store("&migrate=false", url=server.url(user=role))
    kit = Tools(store)
    (job, other) = await kit.new(2)
    await kit.session()
    (taken,) = await kit.claim(1)
    await store.report([Update(taken.id, taken.fence, Progress(1.0), (LogLine(Severity.INFO, "x"),))])
    await store.put_documents("kind", {"a": b"1"})
    assert await store.documents("kind") == {"a": b"1"}
    done = await kit.finish(taken)
    assert await store.delete([done, other]) == [True, True]
    assert await store.get([job.id]) == [None]
    await raw.execute(f"drop owned by {role}; drop role {role}")


async def test_a_database_that_is_not_there(server: postgres.PostgresServer) -> None:
    for url in (server.url("nowhere"), server.url(port=postgres.free_port()), server.url(user="nobody_known")):
        with pytest.raises(Unavailable):
            await from_url(url, SystemClock()).open(Listener())


async def test_a_person_can_read_jobs(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    await kit.session()
    payload = Content('{"to": "Zoë", "pages": [1, 2]}'.encode())
    (mail,) = await kit.new(1, type="mail", payload=payload, labels={"team": "a"}, priority=3, request_id="r1")
    (taken,) = await kit.claim(1, asks=[Ask("mail", 1)])
    await store.report([Update(taken.id, taken.fence, Progress(1.0, 2.0, "half"), (LogLine(Severity.INFO, "hello"),))])
    done = await kit.finish(taken, Succeeded(Content(b'{"sent": true}')))
    (broken,) = await kit.new(1, type="broken")
    (taken,) = await kit.claim(1, asks=[Ask("broken", 1)])
    await kit.finish(taken, Failed(Failure(2, "NO_PAPER", "no \x00 paper"), retryable=False))
    (later,) = await kit.new(1, type="later", delay=HOUR, payload=Content(b"\x00\x01", "image/png"))
    (running,) = await kit.new(1, type="running", attempt_timeout=60 * SECOND)
    await kit.claim(1, asks=[Ask("running", 1)])
    raw = await bench.raw()
    found = {str(row["id"]): row for row in await raw.fetch(f'select * from "{bench.schema}".jobs')}
    assert len(found) == 4
    row = found[mail.id]
    assert (row["state"], row["type"], row["queue"], row["namespace"]) == ("SUCCESS", "mail", "main", "default")
    assert (row["priority"], row["attempt"], row["worker"], row["request_id"]) == (3, 1, "worker of s1", "r1")
    assert row["payload"] == payload.data.decode()
    assert json.loads(row["labels"]) == {"team": "a"}
    assert (row["result"], row["progress"], row["progress_message"]) == ('{"sent": true}', 1.0, "half")
    assert row["created"] == _instant(mail.spec.create_time)
    assert row["started"] == _instant(done.attempt_start)
    assert row["finished"] == _instant(done.finish_time or 0)
    row = found[broken.id]
    assert (row["state"], row["error_reason"], row["error_message"]) == ("FAILED", "NO_PAPER", "no ␀ paper")
    row = found[later.id]
    assert (row["state"], row["ready"], row["payload"]) == ("PENDING", False, None)
    assert row["starts"] == _instant(later.next_start)
    row = found[running.id]
    assert (row["state"], row["worker"], row["attempt"]) == ("RUNNING", "worker of s1", 1)
    assert row["due"] - row["started"] == timedelta(seconds=60)
    for stored in await store.get(list(found)):
        assert stored is not None


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
