"""The URL of a Redis store, and what a server says about itself."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.base import WrongUrl
from atlas_grpc.stores.redis import UnfitServer, from_url
from atlas_grpc.stores.redis.server import Server, read_server
from atlas_grpc.stores.redis.url import Address, parse


def test_the_forms_of_a_url():
    plain = parse("redis://")
    assert plain.kind is Connection
    assert (plain.arguments["host"], plain.arguments["port"], plain.arguments["db"]) == ("localhost", 6379, 0)
    full = parse("rediss://us%40er:p%3Aw@[::1]:7000/3?ssl_ca_certs=/ca.pem&ssl_check_hostname=false")
    assert full.kind is SSLConnection
    assert full.arguments == {
        "host": "::1", "port": 7000, "db": 3, "username": "us@er", "password": "p:w",
        "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False,
    }  # fmt: skip
    for scheme in ("unix", "redis+unix"):
        socket = parse(f"{scheme}:///run/my%20redis.sock?db=2")
        assert socket.kind is UnixDomainSocketConnection
        assert (socket.arguments["path"], socket.arguments["db"]) == ("/run/my redis.sock", 2)
    watched = parse("redis+sentinel://:pw@a,b:7/jobs/4?sentinel_password=x")
    assert watched.sentinels == (Address("a", 26379), Address("b", 7))
    assert (watched.service, watched.arguments["db"], watched.arguments["password"]) == ("jobs", 4, "pw")
    assert watched.sentinel_arguments == {"password": "x"}


def test_options():
    options = parse(
        "redis://h?prefix=my.app&pool=3&timeout=1.5&connect_timeout=0.5&wait=aof,replicas:2&audit=0"
    ).options
    assert (options.prefix, options.pool, options.timeout, options.connect_timeout) == ("my.app", 3, 1.5, 0.5)
    assert (options.wait_aof, options.wait_replicas, options.audit) == (True, 2, 0)


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("mysql://h", "scheme"),
        ("redis://h/jobs", "db"),
        ("redis://h/1/2", "path"),
        ("redis://h:port", "port"),
        ("redis://h:0", "port"),
        ("redis://h?prefix={x}", "prefix"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?pool=0", "pool"),
        ("redis://h?pool=-1", "pool"),
        ("redis://h?timeout=soon", "timeout"),
        ("redis://h?timeout=0", "timeout"),
        ("redis://h?wait=disk", "wait"),
        ("redis://h?wait=replicas:0", "wait"),
        ("redis://h?eviction=allowed", "eviction"),
        ("redis://h?pool", "syntax"),
        ("redis://h?ssl_ca_certs=/x", "ssl_ca_certs"),
        ("redis+sentinel://h", "path"),
        ("redis+sentinel:///jobs", "path"),
        ("unix://host/path", "path"),
        ("unix://", "path"),
    ],
)
def test_a_wrong_part_is_named(url: str, option: str):
    with pytest.raises(WrongUrl) as caught:
        from_url(url, SystemClock())
    assert caught.value.option == option
    assert option in str(caught.value)


def told(**more: str) -> Server:
    lines = {"redis_version": "7.0.15", "run_id": "x", "role": "master", "maxmemory_policy": "noeviction", **more}
    return read_server("".join(f"{name}:{value}\r\n" for name, value in lines.items()).encode(), None)


@pytest.mark.parametrize(
    ("info", "setting"),
    [
        ({"redis_version": "6.2.14"}, "the version"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.8", "server_name": "valkey"}, "the version"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy"),
    ],
)
def test_an_unfit_server_is_told_by_what_is_wrong(info: dict[str, str], setting: str):
    with pytest.raises(UnfitServer) as caught:
        told(**info).check(wait_aof=False)
    assert caught.value.setting == setting


def test_fit_servers():
    for info in ({}, {"redis_version": "8.0.0"}, {"redis_version": "7.2.4", "valkey_version": "8.1.1"}):
        told(**info).check(wait_aof=False)
    with pytest.raises(UnfitServer):
        told(aof_enabled="1").check(wait_aof=True)
    told(redis_version="7.2.0", aof_enabled="1").check(wait_aof=True)


def test_what_keeps_every_write():
    def server(config: object, **more: str) -> Server:
        return read_server("".join(f"{k}:{v}\r\n" for k, v in more.items()).encode(), config)

    always = [b"appendfsync", b"always"]
    assert server(always, aof_enabled="1").keeps_every_write
    assert not server(always, aof_enabled="0").keeps_every_write
    assert not server([b"appendfsync", b"everysec"], aof_enabled="1").keeps_every_write
    assert not server(always, aof_enabled="1", master_replid2="a" * 40).keeps_every_write
    assert server(RuntimeError(), aof_enabled="1").aof == "unknown"
