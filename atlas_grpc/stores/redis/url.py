"""The URL of a Redis store, taken apart and checked before anything is connected.

    redis://[user:password@]host[:port][/db]            TCP
    rediss://…                                          TCP with TLS
    redis+unix:///path/to/socket, unix:///path          a Unix socket
    redis+sentinel://[user:password@]host[:port],…/service[/db]
                                                        the master that Sentinel names (rediss+sentinel://… with TLS)

followed by options as a query: `?prefix=atlas&pool=2`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

from .. import schemes
from ..base import WrongUrl

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WAIT = re.compile(r"aof|replicas:([1-9]\d?)")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname", "ssl_password")
_REDIS_PORT = 6379
_SENTINEL_PORT = 26379


class Address(NamedTuple):
    """A host and its port."""

    host: str
    port: int


class Options(msgspec.Struct, frozen=True):
    """The options in a URL's query that are not for the driver."""

    prefix: str = "atlas"
    """All keys begin with `{prefix}:`. Stores with different prefixes are strangers to each other."""
    pool: int = 2
    """Connections for calls; one more listens."""
    timeout: float = 5.0
    """Seconds after which a call without answer fails, and its connection with it."""
    connect_timeout: float = 2.0
    wait_aof: bool = False
    """Acknowledge a write when it is in the append-only file on disk (WAITAOF)."""
    wait_replicas: int = 0
    """Acknowledge a write when so many replicas have it (WAIT)."""
    audit: float = 3600.0
    """Seconds between two passes of the auditor; 0 for none."""


class Target(msgspec.Struct, frozen=True):
    """Where to connect, and how."""

    kind: type[AbstractConnection]
    arguments: dict[str, Any]
    options: Options
    sentinels: tuple[Address, ...] = ()
    service: str = ""
    sentinel_arguments: dict[str, Any] = {}


def parse(url: str) -> Target:
    """Takes a URL apart. Raises WrongUrl."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise WrongUrl("syntax", f"is wrong: {error}") from None
    if scheme not in schemes.REDIS:
        raise WrongUrl("scheme", f"is {scheme!r}; known are {', '.join(schemes.REDIS)}")
    tls = scheme.startswith("rediss")
    arguments: dict[str, Any] = {name: query.pop(name) for name in _TLS if name in query}
    if arguments and not tls:
        raise WrongUrl(next(iter(arguments)), "needs TLS: rediss://")
    if "ssl_check_hostname" in arguments:
        arguments["ssl_check_hostname"] = arguments["ssl_check_hostname"] not in {"false", "0", "no"}
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    arguments |= {"username": unquote(user) or None, "password": unquote(password) or None}
    sentinel_arguments = {
        name.removeprefix("sentinel_"): query.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in query
    }
    options = _options(query)
    if scheme.endswith("unix"):
        if not parts.path or hosts:
            raise WrongUrl("path", "of the socket must be absolute: unix:///path/to/socket")
        arguments |= {"path": unquote(parts.path), "db": _integer("db", query.pop("db", "0"), 0, 10**6)}
        _refuse_others(query)
        return Target(UnixDomainSocketConnection, arguments, options)
    query.pop("db", None)
    _refuse_others(query)
    kind = SSLConnection if tls else Connection
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    if not scheme.endswith("sentinel"):
        if len(path) > 1:
            raise WrongUrl("path", "holds nothing but the number of the database")
        address = _address(hosts or "localhost", _REDIS_PORT)
        arguments |= {**address._asdict(), "db": _integer("db", path[0] if path else "0", 0, 10**6)}
        return Target(kind, arguments, options)
    if not 1 <= len(path) <= 2 or not hosts:
        raise WrongUrl("path", "must name the master: redis+sentinel://host:26379,…/service[/db]")
    arguments["db"] = _integer("db", path[1] if len(path) == 2 else "0", 0, 10**6)
    sentinels = tuple(_address(host, _SENTINEL_PORT) for host in hosts.split(","))
    return Target(kind, arguments, options, sentinels, path[0], sentinel_arguments)


def _options(query: dict[str, str]) -> Options:
    """Takes our options out of the query."""
    readers: dict[str, Callable[[str, str], Any]] = {
        "prefix": _prefix,
        "pool": lambda name, text: _integer(name, text, 1, 64),
        "timeout": lambda name, text: _seconds(name, text, 0.1),
        "connect_timeout": lambda name, text: _seconds(name, text, 0.1),
        "audit": lambda name, text: _seconds(name, text, 0.0),
    }
    found = {name: read(name, query.pop(name)) for name, read in readers.items() if name in query}
    for wait in query.pop("wait", "").split(",") if "wait" in query else ():
        match = _WAIT.fullmatch(wait)
        if match is None:
            raise WrongUrl("wait", f"is {wait!r}; known are aof, and replicas:N")
        found |= {"wait_replicas": int(match[1])} if match[1] else {"wait_aof": True}
    return Options(**found)


def _refuse_others(query: dict[str, str]) -> None:
    if query:
        known = ", ".join(("prefix", "pool", "timeout", "connect_timeout", "wait", "audit", "db", *_TLS))
        raise WrongUrl(next(iter(query)), f"is no option; known are {known}")


def _prefix(name: str, text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise WrongUrl(name, f"is {text!r}; it may have letters, digits and _.- and up to 64 of them")
    return text


def _integer(name: str, text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
        raise WrongUrl(name, f"is {text!r}; it must be a whole number from {low} to {high}")
    return int(text)


def _seconds(name: str, text: str, low: float) -> float:
    if not re.fullmatch(r"\d{1,7}(\.\d{1,6})?", text) or float(text) < low:
        raise WrongUrl(name, f"is {text!r}; it must be seconds, {low:g} or more")
    return float(text)


def _address(text: str, port: int) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    host = host.strip("[]")
    if not host:
        raise WrongUrl("host", "is missing")
    return Address(unquote(host), _integer("port", number, 1, 65_535))
