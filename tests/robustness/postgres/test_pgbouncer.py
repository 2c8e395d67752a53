"""The PostgreSQL store behind pgbouncer in transaction mode."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.base import WrongUrl
from atlas_grpc.stores.postgres import from_url
from atlas_grpc.testing.stores import CHECKS, CheckSkipped
from tests.conformance.stores.factories_postgres import PostgresFactory
from tests.support import debian, postgres
from tests.support.postgres_bench import Tools, listener_of
from tests.support.vitals import vital
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres_bench import Bench

pytestmark = pytest.mark.timeout(debian.TIMEOUT)

_CONFIGURATION = """
[databases]
postgres = host=127.0.0.1 port={server} user=atlas
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
logfile = {folder}/log
"""


def _find() -> str | None:
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture(scope="module")
def bouncer(server: postgres.PostgresServer) -> Iterator[str]:
    program = debian.provided(_find, "pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="atlas-bouncer-"))
    folder.chmod(0o755)
    postgres.give_away(folder)
    port = postgres.free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(_CONFIGURATION.format(server=server.port, port=port, folder=folder), "utf-8")
    process = subprocess.Popen([*postgres.unprivileged(), program, "-q", str(config)], cwd="/")
    try:
        postgres.wait_for_port(port)
        yield server.url(port=port)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _options(server: postgres.PostgresServer) -> str:
    return f"&pgbouncer=true&listen={quote(server.url(), safe='')}"


@pytest.mark.parametrize("name", sorted(CHECKS))
async def test_check(name: str, server: postgres.PostgresServer, bouncer: str) -> None:
    factory = PostgresFactory(bouncer, _options(server), cleaner=server.url())
    with contextlib.suppress(CheckSkipped):
        await CHECKS[name](factory)


async def test_notices_go_past_it(server: postgres.PostgresServer, bouncer: str, bench: Bench) -> None:
    one = await bench.store(_options(server), url=bouncer)
    two = await bench.store(_options(server), url=bouncer)
    await until(lambda: vital(one, "atlas_postgresql_listening") == 1 and vital(two, "atlas_postgresql_listening") == 1)
    (job,) = await Tools(one).new(1)
    heard = listener_of(two)
    await until(lambda: [job.id] in heard.news and heard.ready)


def test_it_must_be_told_where_to_listen() -> None:
    with pytest.raises(WrongUrl) as caught:
        from_url("postgresql://h/d?pgbouncer=true", SystemClock())
    assert caught.value.option == "listen"
