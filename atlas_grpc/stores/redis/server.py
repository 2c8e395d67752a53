"""What a server says about itself, and whether jobs may be entrusted to it."""

from __future__ import annotations

import msgspec

from .faults import UnfitServer

_REDIS = (7, 0)
_VALKEY = (8, 0)
_WAITAOF = (7, 2)
AOF_MODES = ("always", "everysec", "no", "off", "unknown")
_NO_HISTORY = "0" * 40


class Server(msgspec.Struct, frozen=True):
    """A server process. `aof` is one of AOF_MODES: what `appendfsync` says, `off` without an append-only file,
    `unknown` if it is not told."""

    name: str
    version: tuple[int, ...]
    compatible: tuple[int, ...]
    """The version of Redis that it is compatible with."""
    run: str
    role: str
    loading: bool
    policy: str
    aof: str
    promoted: bool
    """Whether it was a replica before, and took over."""
    max_memory: int
    used_memory: int
    clients: int
    aof_ok: bool
    snapshot_ok: bool
    """Whether the last write of the append-only file, and the last snapshot, succeeded."""

    @property
    def keeps_every_write(self) -> bool:
        """Whether all that it acknowledged is there again after it was killed."""
        return self.aof == "always" and not self.promoted

    def check(self, *, wait_aof: bool) -> None:
        """Raises UnfitServer when it must not be used, whatever happens next."""
        needed = _VALKEY if self.name == "valkey" else _REDIS
        if self.version < needed:
            found = ".".join(map(str, self.version))
            raise UnfitServer(
                "the version", f"{self.name} {found}", f"Redis {_REDIS[0]} or Valkey {_VALKEY[0]} at least"
            )
        if self.policy != "noeviction":
            raise UnfitServer("maxmemory-policy", self.policy, "noeviction: any other one may delete jobs")
        if wait_aof and self.aof == "off":
            raise UnfitServer("appendonly", "no", "yes for wait=aof")
        if wait_aof and self.compatible < _WAITAOF:
            raise UnfitServer("the version", f"{self.name} {'.'.join(map(str, self.version))}", "7.2 for wait=aof")


def read_server(info: bytes, config: object) -> Server:
    """From the answers to INFO, and to CONFIG GET appendfsync (an error where that is not allowed)."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    told = {name: value for name, colon, value in lines if colon}
    compatible = _version(told.get("redis_version", "0"))
    valkey = told.get("valkey_version")
    aof = "off"
    if told.get("aof_enabled") == "1":
        aof = config[1].decode() if isinstance(config, list) and len(config) == 2 else "unknown"
    return Server(
        "valkey" if valkey else "redis",
        _version(valkey) if valkey else compatible,
        compatible,
        told.get("run_id", ""),
        told.get("role", ""),
        told.get("loading") == "1",
        told.get("maxmemory_policy", "unknown"),
        aof,
        told.get("master_replid2", _NO_HISTORY) != _NO_HISTORY,
        int(told.get("maxmemory", "0")),
        int(told.get("used_memory", "0")),
        int(told.get("connected_clients", "0")),
        told.get("aof_last_write_status", "ok") == "ok",
        told.get("rdb_last_bgsave_status", "ok") == "ok",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
