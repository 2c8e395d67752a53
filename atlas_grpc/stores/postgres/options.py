"""What the URL of a PostgreSQL store may say.

    postgresql://user:password@host:5432/database?schema=atlas&pool=8

Options of Atlas stand beside those of libpq (`sslmode`, `host` for a socket's folder …), which are handed on.
"""

from __future__ import annotations

import math
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ...model import Record
from .. import schemes
from ..base import WrongUrl

_LIBPQ = frozenset({
    "database", "dbname", "gsslib", "host", "krbsrvname", "passfile", "password", "port", "service", "servicefile",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
_YES = ("true", "on", "1")
_NO = ("false", "off", "0")


class Options(Record, frozen=True):
    """A read URL."""

    dsn: str
    """For the driver, without the options of Atlas."""
    schema: str = "atlas"
    pool: int = 8
    """Connections for calls; one more listens."""
    listen: str | None = None
    """The DSN to LISTEN on, where that is another; "" where nothing can be listened to."""
    timeout: float = 10.0
    """Seconds that a call may take."""
    pgbouncer: bool = False
    """Whether a pooler in transaction mode stands between."""
    migrate: bool = True
    """Whether opening the store may bring the schema up to date."""

    @property
    def listen_dsn(self) -> str | None:
        """Where to listen; None for nowhere."""
        return self.dsn if self.listen is None else self.listen or None


def parse(url: str) -> Options:
    """Reads a URL. Raises WrongUrl."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WrongUrl("store", f"is no URL: {error}") from None
    if parts.scheme not in schemes.POSTGRES:
        raise WrongUrl("store", f"must begin with postgresql://, not {parts.scheme}://")
    if port == 0:
        raise WrongUrl("port", "must be from 1 to 65535")
    ours: dict[str, str] = {}
    theirs: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _LIBPQ:
            theirs.append((name, value))
        elif name not in _READERS:
            known = ", ".join(_READERS)
            raise WrongUrl(name, f"is not an option of this store; known are {known}, and those of libpq")
        elif name in ours:
            raise WrongUrl(name, "is given twice")
        else:
            ours[name] = value
    dsn = parts._replace(query=urlencode(theirs, quote_via=quote), fragment="").geturl()
    if ours.get("pgbouncer") in _YES and "listen" not in ours:
        raise WrongUrl("listen", "must be given with pgbouncer=true: a URL that leads past the pooler, or off")
    values = {name: _READERS[name](name, value) for name, value in ours.items()}
    return Options(dsn, **values)  # type: ignore[arg-type]  # each reader answers what its field holds


def _schema(name: str, value: str) -> str:
    if not _SCHEMA.fullmatch(value):
        raise WrongUrl(name, "must be up to 40 of a-z, 0-9 and _, not begin with a digit or with pg_")
    return value


def _pool(name: str, value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 100:
        raise WrongUrl(name, f"must be a number from 1 to 100, not {value!r}")
    return int(value)


def _timeout(name: str, value: str) -> float:
    try:
        seconds = float(value.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 600:
        raise WrongUrl(name, f"must be from 0.1 to 600 seconds, not {value!r}")
    return seconds


def _listen(name: str, value: str) -> str:
    if value == "off":
        return ""
    if urlsplit(value).scheme not in schemes.POSTGRES:
        raise WrongUrl(name, "must be a postgresql:// URL (percent-encoded), or off")
    return value


def _truth(name: str, value: str) -> bool:
    if value not in _YES + _NO:
        raise WrongUrl(name, f"must be true or false, not {value!r}")
    return value in _YES


_READERS = {
    "schema": _schema,
    "pool": _pool,
    "listen": _listen,
    "timeout": _timeout,
    "pgbouncer": _truth,
    "migrate": _truth,
}
