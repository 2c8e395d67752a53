"""Job handlers that do real work: `atlas serve --handlers docs/examples/archive.py`.

archive    packs a directory tree into a .tar.gz, with a SHA-256 of every file (in a process: it is CPU-bound)
checksum   the SHA-256 of one file (in a thread: it waits for the disk, and hashing leaves the interpreter free)
flaky      fails a few times before it succeeds, to watch retries (a coroutine)
countdown  counts down with progress and a log, to watch and to cancel (a coroutine)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from atlas_grpc.errors import FailNow
from atlas_grpc.worker import JobContext, handler

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1024 * 1024
SUMS = "SHA256SUMS"


class ArchiveArgs(BaseModel):
    """What to pack."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, description="The directory to pack.")
    target: str | None = Field(None, description="The .tar.gz to write; left out: a new file among the temporary ones.")
    level: int = Field(6, ge=0, le=9, description="How hard to compress: 0 not at all, 9 the most.")
    exclude: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="Patterns such as `*.pyc` or `build/*` of names and relative paths to leave out."
    )


class ArchiveResult(BaseModel):
    """What was packed."""

    archive: str = Field(description="The path of the archive.")
    files: int
    bytes: int = Field(description="The size of the files.")
    archive_bytes: int = Field(description="The size of the archive.")
    sha256: str = Field(description="The digest of the archive; those of the files stand in its SHA256SUMS.")
    seconds: float


@dataclass
class Entry:
    """A file, directory or link to pack."""

    path: Path
    name: str
    size: int


@handler(executor="process", attempt_timeout=3600, retry={"max_attempts": 2})
def archive(args: ArchiveArgs, ctx: JobContext) -> ArchiveResult:
    """Packs a directory tree into a .tar.gz, with the SHA-256 of every file."""
    started = time.monotonic()
    source = Path(args.source)
    if not source.is_dir():
        raise FailNow(f"{source} is no directory", reason="SOURCE_MISSING")
    target = Path(args.target or Path(tempfile.gettempdir(), f"archive-{ctx.id}.tar.gz")).absolute()
    if not target.parent.is_dir():
        raise FailNow(f"{target.parent} is no directory", reason="TARGET_MISSING")
    entries = [entry for entry in _walk(source, args.exclude) if entry.path.absolute() != target]
    total = sum(entry.size for entry in entries)
    ctx.info(f"packing {len(entries)} entries, {total} bytes")
    with _replacing(target) as file:
        out = _Hashing(file)
        files = _pack(entries, out, args.level, total, ctx)
    ctx.progress(total, total, "done")
    return ArchiveResult(
        archive=str(target),
        files=files,
        bytes=total,
        archive_bytes=out.count,
        sha256=out.digest.hexdigest(),
        seconds=round(time.monotonic() - started, 3),
    )


def _walk(source: Path, exclude: list[str]) -> Iterator[Entry]:
    """Everything below the source but sockets and devices, each directory before what is in it, in a fixed order."""
    for directory, names, files in os.walk(source, onerror=_raise):
        here = Path(directory)
        names[:] = sorted(name for name in names if not _excluded((here / name).relative_to(source), exclude))
        kept = (name for name in files if not _excluded((here / name).relative_to(source), exclude))
        for name in [*names, *sorted(kept)]:
            path = here / name
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                yield Entry(path, path.relative_to(source).as_posix(), size)


def _raise(error: OSError) -> None:
    raise error


def _excluded(path: Path, patterns: list[str]) -> bool:
    return any(fnmatch(path.name, pattern) or fnmatch(path.as_posix(), pattern) for pattern in patterns)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the target's place when all went well, and vanishes otherwise."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Hashing(io.RawIOBase):
    """A file to write to that digests and counts what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.digest.update(data)
        self.count += len(data)
        return self._file.write(data)


class _Source(io.RawIOBase):
    """A file to read from that digests what passes, reports it, and stops when the job is cancelled."""

    def __init__(self, file: IO[bytes], done: int, total: int, name: str, ctx: JobContext) -> None:
        self._file = file
        self._done = done
        self._total = total
        self._name = name
        self._ctx = ctx
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        self._ctx.raise_if_cancelled()
        data = self._file.read(size)
        self.digest.update(data)
        self._done += len(data)
        self._ctx.progress(self._done, self._total, self._name)
        return data


def _pack(entries: list[Entry], out: _Hashing, level: int, total: int, ctx: JobContext) -> int:
    """Writes the archive and returns how many files are in it."""
    sums: list[str] = []
    done = 0
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=out, mtime=0) as zipped,
        tarfile.TarFile(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK) as tar,
    ):
        for entry in entries:
            ctx.raise_if_cancelled()
            info = tar.gettarinfo(str(entry.path), arcname=entry.name)
            if not info.isreg():
                # A second name of a file that is packed already becomes a link, too.
                tar.addfile(info)
                done += entry.size
                if info.isdir():
                    ctx.info(f"directory {entry.name}")
                continue
            with entry.path.open("rb") as file:
                source = _Source(file, done, total, entry.name, ctx)
                tar.addfile(info, source)
            done += entry.size
            sums.append(_sum_line(source.digest.hexdigest(), entry.name))
        listing = "".join(sums).encode(errors="surrogateescape")
        taken = any(entry.name == SUMS for entry in entries)
        info = tarfile.TarInfo(f"{SUMS}.atlas" if taken else SUMS)
        info.size = len(listing)
        tar.addfile(info, io.BytesIO(listing))
    return len(sums)


def _sum_line(digest: str, name: str) -> str:
    """As `sha256sum` writes it: a name that would break the line is escaped, and a backslash in front says so."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


@dataclass
class Checksum:
    """The digest of a file."""

    path: str
    bytes: int
    sha256: str


@handler
def checksum(path: Annotated[str, Field(min_length=1, description="The file.")], *, ctx: JobContext) -> Checksum:
    """The SHA-256 of one file."""
    file = Path(path)
    if not file.is_file():
        raise FailNow(f"{file} is no file", reason="SOURCE_MISSING")
    digest = hashlib.sha256()
    total = file.stat().st_size
    done = 0
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            ctx.raise_if_cancelled()
            digest.update(chunk)
            done += len(chunk)
            ctx.progress(done, total)
    ctx.info(f"{done} bytes read")
    return Checksum(path, done, digest.hexdigest())


class NotYet(Exception):
    """What `flaky` raises; the reason of the error is made from the name: NOT_YET."""


@handler(retry={"max_attempts": 5, "initial_backoff": 0.5, "multiplier": 2})
async def flaky(
    fail_times: Annotated[int, Field(ge=0, le=100, description="How many attempts fail.")] = 2, *, ctx: JobContext
) -> dict[str, int]:
    """Fails the first attempts of each run, then succeeds."""
    if ctx.attempt <= fail_times:
        ctx.warning(f"attempt {ctx.attempt} of {ctx.max_attempts} fails on purpose")
        raise NotYet(f"attempt {ctx.attempt} fails, as it was asked to")
    return {"attempts": ctx.attempt}


@handler(concurrency=100)
async def countdown(
    steps: Annotated[int, Field(ge=1, le=10_000, description="Where to start.")] = 10,
    delay: Annotated[float, Field(ge=0, le=60, description="Seconds between two steps.")] = 0.5,
    *,
    ctx: JobContext,
) -> dict[str, int]:
    """Counts down to zero, with progress and a log line for each step."""
    for step in range(steps):
        ctx.info(f"{steps - step} to go")
        await ctx.sleep(delay)
        ctx.progress(step + 1, steps, f"step {step + 1} of {steps}")
    return {"steps": steps}
