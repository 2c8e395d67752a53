"""The URL of a PostgreSQL store."""

from __future__ import annotations

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.base import WrongUrl
from atlas_grpc.stores.postgres import from_url
from atlas_grpc.stores.postgres.options import Options, parse


def test_the_defaults():
    assert parse("postgresql://h/d") == Options("postgresql://h/d")
    assert parse("postgres://h/d").listen_dsn == "postgres://h/d"


def test_options_of_atlas_are_taken_out_and_those_of_libpq_stay():
    options = parse(
        "postgresql://u:p%40@h:5433/d?schema=jobs&sslmode=require&pool=3&timeout=2.5s&migrate=false&host=%2Ftmp%2Fs"
        "&pgbouncer=on&listen=postgresql%3A%2F%2Fh2%2Fd%3Fsslmode%3Drequire"
    )
    assert options.dsn == "postgresql://u:p%40@h:5433/d?sslmode=require&host=%2Ftmp%2Fs"
    assert (options.schema, options.pool, options.timeout) == ("jobs", 3, 2.5)
    assert (options.migrate, options.pgbouncer) == (False, True)
    assert options.listen_dsn == "postgresql://h2/d?sslmode=require"


def test_listening_can_be_off():
    assert parse("postgresql://h/d?listen=off").listen_dsn is None


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("mysql://h/d", "store"),
        ("postgresql://h:port/d", "store"),
        ("postgresql://h:0/d", "port"),
        ("postgresql://[h/d", "store"),
        ("postgresql://u:secret@h/d?shcema=x", "shcema"),
        ("postgresql://u:secret@h/d?schema=a&schema=b", "schema"),
        ("postgresql://u:secret@h/d?schema=", "schema"),
        ("postgresql://u:secret@h/d?schema=A", "schema"),
        ("postgresql://u:secret@h/d?schema=a%22b", "schema"),
        ("postgresql://u:secret@h/d?schema=pg_x", "schema"),
        ("postgresql://u:secret@h/d?schema=" + "a" * 41, "schema"),
        ("postgresql://u:secret@h/d?pool=0", "pool"),
        ("postgresql://u:secret@h/d?pool=101", "pool"),
        ("postgresql://u:secret@h/d?pool=-1", "pool"),
        ("postgresql://u:secret@h/d?pool=many", "pool"),
        ("postgresql://u:secret@h/d?timeout=0", "timeout"),
        ("postgresql://u:secret@h/d?timeout=nan", "timeout"),
        ("postgresql://u:secret@h/d?timeout=soon", "timeout"),
        ("postgresql://u:secret@h/d?migrate=perhaps", "migrate"),
        ("postgresql://u:secret@h/d?pgbouncer=true", "listen"),
        ("postgresql://u:secret@h/d?listen=elsewhere", "listen"),
    ],
)
def test_what_is_wrong_is_named(url: str, option: str):
    with pytest.raises(WrongUrl) as caught:
        from_url(url, SystemClock())
    assert caught.value.option == option
    assert str(caught.value).startswith(option)
    assert "secret" not in str(caught.value)
