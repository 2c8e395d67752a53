"""The module of docs/examples and the built-in types, executed for real."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from atlas_grpc.model import Content, Failed, Stopped, Succeeded
from atlas_grpc.worker import Registry
from tests.unit.worker.memory_source import QuickClock, running

EXAMPLE = str(Path(__file__).parents[3] / "docs" / "examples" / "archive.py")


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    registry = Registry()
    registry.load(EXAMPLE)
    registry.load("atlas_grpc.worker.builtin")
    return registry


@pytest.fixture
def tree(tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a.txt").write_bytes(b"a" * 3_000_000)
    (source / "deep" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (source / "deep" / "er" / "skip.pyc").write_bytes(b"x")
    (source / "deep" / "link").symlink_to("b.bin")
    return source


def result(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


def test_every_field_is_described(registry):
    assert [info.name for info in registry.types()] == ["archive", "checksum", "countdown", "flaky", "sleep"]
    for info in registry.types():
        assert info.description
        assert info.result_schema
        for name, field in json.loads(info.payload_schema)["properties"].items():
            assert field["description"], name


async def test_archive_packs_a_tree(registry, tree, tmp_path):
    target = tmp_path / "out.tar.gz"
    async with running(registry) as (source, _):
        job = source.add("archive", {"source": str(tree), "target": str(target), "exclude": ["*.pyc"], "level": 1})
        packed = result(await source.outcome(job))
    assert packed["archive"] == str(target)
    assert (packed["files"], packed["bytes"]) == (2, 3_025_600)
    assert packed["archive_bytes"] == target.stat().st_size
    assert packed["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    with tarfile.open(target) as tar:
        assert tar.getnames() == ["deep", "empty", "a.txt", "deep/er", "deep/b.bin", "deep/link", "SHA256SUMS"]
        sums = dict(reversed(line.split("  ")) for line in tar.extractfile("SHA256SUMS").read().decode().splitlines())
        for name in ("a.txt", "deep/b.bin"):
            assert tar.extractfile(name).read() == (tree / name).read_bytes()
            assert sums[name] == hashlib.sha256((tree / name).read_bytes()).hexdigest()
        assert tar.getmember("deep/link").linkname == "b.bin"
    assert source.progress(job)[-1].current == packed["bytes"]
    assert "directory deep/er" in [line.message for line in source.logs(job)]
    assert list(tmp_path.glob("*.part")) == list(tmp_path.glob(".*.part")) == []


async def test_sums_of_files_with_any_name_can_be_checked(registry, tmp_path):
    source = tmp_path / "odd"
    source.mkdir()
    for name in ("plain", "two\nlines", "back\\slash", "return\r", os.fsdecode(b"latin\xe9")):
        (source / name).write_text(ascii(name))
    async with running(registry) as (work, _):
        packed = result(await work.outcome(work.add("archive", {"source": str(source)})))
    unpack_and_check(Path(packed["archive"]), tmp_path / "unpacked")


def unpack_and_check(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout.count(b": OK\n")) == (0, 5), checked


async def test_archive_into_its_own_source_leaves_itself_out(registry, tree):
    async with running(registry) as (source, _):
        job = source.add("archive", {"source": str(tree), "target": str(tree / "self.tar.gz")})
        first = result(await source.outcome(job))
        again = result(await source.outcome(source.add("archive", {"source": str(tree), "target": first["archive"]})))
    assert again["sha256"] == first["sha256"]


async def test_a_missing_source_fails_for_good(registry, tmp_path):
    async with running(registry) as (source, _):
        for job_type, args in (("archive", {"source": str(tmp_path / "no")}), ("checksum", {"path": str(tmp_path)})):
            failed = await source.outcome(source.add(job_type, args))
            assert isinstance(failed, Failed)
            assert (failed.retryable, failed.failure.reason) == (False, "SOURCE_MISSING")


async def test_checksum(registry, tree):
    async with running(registry) as (source, _):
        job = source.add("checksum", {"path": str(tree / "a.txt")})
        done = result(await source.outcome(job))
    assert done["sha256"] == hashlib.sha256(b"a" * 3_000_000).hexdigest()
    assert source.progress(job)[-1].current == done["bytes"] == 3_000_000


async def test_flaky_fails_as_often_as_asked(registry):
    async with running(registry) as (source, _):
        failed = await source.outcome(source.add("flaky", {"fail_times": 1}, attempt=1))
        assert (failed.failure.reason, failed.retryable) == ("NOT_YET", True)
        assert result(await source.outcome(source.add("flaky", {"fail_times": 1}, attempt=2))) == {"attempts": 2}


async def test_countdown_tells_each_step_and_can_be_cancelled(registry):
    async with running(registry, clock=QuickClock()) as (source, _):
        job = source.add("countdown", {"steps": 3, "delay": 60})
        assert result(await source.outcome(job)) == {"steps": 3}
        assert [line.message for line in source.logs(job)] == ["3 to go", "2 to go", "1 to go"]
        assert source.progress(job)[-1].current == 3
    async with running(registry) as (source, _):
        job = source.add("countdown", {"steps": 3, "delay": 60})
        await source.said(job, "3 to go")
        source.stop(job)
        assert await source.outcome(job) == Stopped()


@pytest.mark.parametrize("seconds", [0, 0.25, 3, 86_400])
async def test_sleep_sleeps_on_the_clock(registry, seconds):
    clock = QuickClock()
    async with running(registry, clock=clock) as (source, _):
        before = clock.time
        assert result(await source.outcome(source.add("sleep", {"seconds": seconds}))) == {"slept": seconds}
        assert clock.time - before >= seconds - 1e-6
        assert len(source.updates) <= 101


@pytest.mark.parametrize("seconds", ["true", '"3"', "-1", "86400.1", "null", "[3]", "1e999", "NaN"])
def test_sleep_refuses(registry, seconds):
    (violation,) = registry.violations("sleep", Content(b'{"seconds":%s}' % seconds.encode()))
    assert violation.field == "payload.seconds"


def test_sleep_needs_seconds_and_nothing_else(registry):
    assert [v.field for v in registry.violations("sleep", Content(b"{}"))] == ["payload.seconds"]
    extra = Content(b'{"seconds":1,"hours":2}')
    assert [v.field for v in registry.violations("sleep", extra)] == ["payload.hours"]
