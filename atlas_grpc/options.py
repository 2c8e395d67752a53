"""Values of options: addresses, durations and sizes; how each is read from text, checked and written back.

Whoever needs an option with a flag, an environment variable and a TOML key declares it with the helpers at the end.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

ENV_PREFIX = "ATLAS_"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_SECRET = re.compile(r"(?i)(?<=[?&])([^=&]*(?:pass|pwd|secret|token|key)[^=&]*)=[^&#]*")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})", re.ASCII)


class Source(NamedTuple):
    """Where a value came from: `kind` is `flag`, `environment`, `file` or `default`."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".strip()


DEFAULT = Source("default")


class Problem(NamedTuple):
    """One thing that is wrong with the configuration. `value` is shown to people, without passwords."""

    option: str
    source: Source
    value: str
    allowed: str

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return f"{self.option}{shown} ({self.source}): {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` names each option, its source, the bad value and what is allowed."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Address(NamedTuple):
    """Where a server listens: `host` and `port`, or the `path` of a Unix socket."""

    host: str
    port: int
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` is taken not to be."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound

    def overlaps(self, other: Address) -> bool:
        """Whether both cannot be bound at once."""
        if self.path or other.path:
            return self.path == other.path
        same_host = self.host == other.host or self.wildcard or other.wildcard
        return self.port == other.port != 0 and same_host


def parse_address(value: object) -> Address:
    """`host:port`, `[v6]:port` or `unix:/path`. Raises ValueError."""
    text = str(value)
    if text.startswith("unix:/") and len(text) > len("unix:/") and "\0" not in text:
        return Address("", 0, text.removeprefix("unix:"))
    found = _ADDRESS.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        raise ValueError(text)
    return Address(found["v6"] or found["host"], int(found["port"]))


def parse_duration(value: object) -> float:
    """Seconds, from a number of them or a text such as `30s`, `1h30m`, `7d` or `250ms`. Raises ValueError."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return math.fsum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)  # noqa: TRY004 - a bad value, whatever its type
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(value)
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact text that `parse_duration` reads back: 5400 → `1h30m`, 0.25 → `250ms`, 0 → `0s`."""
    rest, parts = round(seconds * 1000), []
    for unit, millis in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, millis)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: object) -> int:
    """Bytes, from a number of them or a text such as `4MiB` or `64KB`. Raises ValueError."""
    found = None if isinstance(value, bool) else _SIZE.fullmatch(str(value))
    scale = _BYTES.get(found[2].lower()) if found else None
    if not found or scale is None:
        raise ValueError(value)
    size = float(found[1]) * scale
    if size != int(size):
        raise ValueError(value)
    return int(found[1]) * scale if found[1].isdigit() else int(size)


def format_size(size: int) -> str:
    """The shortest exact text that `parse_size` reads back: 1048576 → `1MiB`, 1500 → `1500`."""
    power = 0
    while size and size % 1024 == 0 and power < 4:
        size, power = size // 1024, power + 1
    return f"{size}{' KMGT'[power]}iB" if power else str(size)


def _parse_flag(value: object) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = value if isinstance(value, bool) else known.get(str(value).lower())
    if found is None:
        raise ValueError(value)
    return found


def _parse_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(value)  # noqa: TRY004 - a bad value, whatever its type
    return int(value)


def _parse_text(value: object) -> str:
    # Cs is what a shell passes on that is no text; protobuf cannot hold it.
    if not isinstance(value, str) or any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        raise ValueError(value)
    return value


def _parse_url(value: object) -> str:
    if "://" not in _parse_text(value) or not urlsplit(str(value)).scheme:
        raise ValueError(value)
    return str(value)


def _parse_list(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(value)  # noqa: TRY004 - a bad value, whatever its type
    return tuple(_parse_text(item) for item in value)


def _check_address(value: object) -> str:
    parse_address(value)
    return str(value)


def _check_http(value: object) -> str:
    if value != "off" and parse_address(value).path:
        raise ValueError(value)
    return str(value)


def _hide_password(url: str) -> str:
    """A URL, right or wrong, without what may be a password: people do not escape the `/` and `@` in it."""
    user = r"(?<=://)([^/@:]*):.*@" if "://" in url else r"([^@:]*):.*@"
    return _SECRET.sub(r"\1=***", re.sub(user, r"\1:***@", url, count=1))


class Kind(NamedTuple):
    """A type of option: how a value is read, what is allowed in words, and how it is written."""

    metavar: str
    allowed: str
    parse: Callable[[object], object]
    show: Callable[[Any], str] = str


FLAG = Kind("", "true or false", _parse_flag, lambda value: "true" if value else "false")
COUNT = Kind("N", "a whole number", _parse_count)
DURATION = Kind(
    "TIME", "a time such as 250ms, 30s, 5m, 1h30m or 7d (a bare number means seconds)", parse_duration, format_duration
)
SIZE = Kind("SIZE", "a size such as 4MiB or 64KB (a bare number means bytes)", parse_size, format_size)
TEXT = Kind("TEXT", "a line of text", _parse_text)
URL = Kind("URL", "a store URL such as memory://", _parse_url, _hide_password)
LIST = Kind("TEXT", "a list of texts (in the environment with commas between them)", _parse_list, ",".join)
ADDRESS = Kind("ADDRESS", "host:port, [v6]:port or unix:/absolute/path", _check_address)
HTTP_ADDRESS = Kind("ADDRESS", "host:port, [v6]:port or off", _check_http)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is declared about an option besides its name and default."""

    kind: Kind
    group: str
    help: str
    example: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


class Option(NamedTuple):
    """One option, and the names that it goes by."""

    name: str
    default: object
    spec: Spec

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        """In words: what a value may be."""
        spec = self.spec
        text = f"one of {', '.join(spec.choices)}" if spec.choices else spec.kind.allowed
        bounds = (("at least", spec.low), ("at most", spec.high))
        limits = [f"{word} {spec.kind.show(bound)}" for word, bound in bounds if bound is not None]
        return "must be " + ", ".join([text, " and ".join(limits)] if limits else [text])

    def show(self, value: object) -> str:
        """A value of this option as people read it."""
        return self.spec.kind.show(value)

    def parse(self, raw: object) -> object:
        """The value that `raw` (from a flag, the environment or TOML) stands for. Raises ValueError."""
        value = self.spec.kind.parse(raw)
        low, high, choices = self.spec.low, self.spec.high, self.spec.choices
        if choices and value not in choices:
            raise ValueError(raw)
        if isinstance(value, int | float) and (
            (low is not None and value < low) or (high is not None and value > high)
        ):
            raise ValueError(raw)
        return value


def declare(default: T, kind: Kind, group: str, text: str, **more: Any) -> T:
    """A dataclass field that is an option; `more` are further fields of `Spec`."""
    return field(default=default, metadata={"spec": Spec(kind=kind, group=group, help=text, **more)})
