"""The parent of siblings, with children that do what a file says."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from atlas_grpc.process import siblings as module
from atlas_grpc.process.siblings import Siblings
from tests.support.waiting import until

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 30.0


class Family:
    """Siblings that note what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parent: Siblings | None = None
        self.running: asyncio.Task[int] | None = None

    def plan(self, name: str, **plan: Any) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(plan))

    def start(self, *names: str, changes: Any = None, **options: Any) -> None:
        for name in names:
            if not (self.folder / f"{name}.json").exists():
                self.plan(name)
        self.parent = Siblings([sys.executable, str(CHILD), str(self.folder)], names, **options)
        self.running = asyncio.create_task(self.parent.run(changes))

    @property
    def notes(self) -> list[tuple[str, str, int]]:
        """Name, what happened and process id, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(name, what, int(pid)) for name, what, pid in map(str.split, lines)]

    def count(self, name: str, what: str) -> int:
        return sum(note[:2] == (name, what) for note in self.notes)

    def pid(self, name: str) -> int:
        """Of the latest process."""
        return [pid for who, what, pid in self.notes if (who, what) == (name, "began")][-1]

    async def begun(self, name: str, times: int = 1) -> None:
        await until(lambda: self.count(name, "began") == times, PATIENCE)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(os.getpid(), number)

    async def code(self) -> int:
        assert self.running is not None
        return await asyncio.wait_for(self.running, PATIENCE)


@pytest.fixture
async def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    one = Family(tmp_path)
    yield one
    for _, _, pid in one.notes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if one.running is not None:
        one.running.cancel()
        await asyncio.gather(one.running, return_exceptions=True)


async def test_a_signal_is_passed_on_as_sigterm_once_each_time(family: Family):
    family.plan("a", deaf=1)
    family.plan("b", deaf=1)
    family.start("a", "b")
    await family.begun("a")
    await family.begun("b")
    for name in "ab":  # what a terminal sends to all of its foreground group, they get from their parent alone
        assert os.getsid(family.pid(name)) == family.pid(name)
    family.signal(signal.SIGTERM)
    await until(lambda: family.count("a", "SIGTERM") == family.count("b", "SIGTERM") == 1)
    family.signal(signal.SIGINT)
    assert await family.code() == 0
    for name in "ab":
        assert [what for who, what, _ in family.notes if who == name] == ["began", "SIGTERM", "SIGTERM"]


async def test_the_second_starts_once_the_first_is_at_work(family: Family):
    family.start("a", "b", "c")
    await family.begun("b")
    await family.begun("c")
    assert family.notes[0][:2] == ("a", "began")
    family.signal()
    assert await family.code() == 0


async def test_one_that_dies_is_started_again(family: Family):
    family.start("a", "b")
    for name in "ab":
        await family.begun(name)
        os.kill(family.pid(name), signal.SIGKILL)
        await family.begun(name, 2)
    family.signal()
    assert await family.code() == 0


@pytest.mark.parametrize("code", [1, 2])
async def test_the_first_that_cannot_start_ends_all_with_its_code(family: Family, code: int):
    family.plan("a", works=False, code=code)
    family.start("a", "b")
    assert await family.code() == code
    assert family.count("b", "began") == 0


async def test_any_that_is_misused_ends_all_with_its_code(family: Family):
    """Its modules were broken since the first one started."""
    family.plan("b", works=False, code=2)
    family.start("a", "b")
    assert await family.code() == 2
    assert family.count("a", "SIGTERM") == 1


async def test_any_other_that_cannot_start_is_tried_again(family: Family):
    family.plan("b", works=False, code=1)
    family.start("a", "b")
    await until(lambda: family.count("b", "began") == 2)
    family.plan("b")
    await until(lambda: family.count("b", "began") == 3)
    family.signal()
    assert await family.code() == 0


async def test_one_that_ends_is_started_again_where_they_run_for_ever(family: Family):
    family.plan("a", code=0)
    family.start("a")
    await until(lambda: family.count("a", "began") >= 3)
    family.signal()
    assert await family.code() == 0


@pytest.mark.parametrize("code", [0, 1])
async def test_elsewhere_all_may_end_and_the_worst_code_counts(family: Family, code: int):
    family.plan("a", code=0)
    family.plan("b", code=code)
    family.start("a", "b", for_ever=False)
    assert await family.code() == code
    assert [family.count(name, "began") for name in "ab"] == [1, 1]


async def test_one_that_was_killed_is_started_again_there_too(family: Family):
    family.start("a", for_ever=False)
    await family.begun("a")
    family.plan("a", code=0)
    os.kill(family.pid("a"), signal.SIGKILL)
    assert await family.code() == 0
    assert family.count("a", "began") == 2


class Changes:
    """Changes that the test makes."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[list[str]] = asyncio.Queue()

    def happen(self) -> None:
        self._queue.put_nowait(["handlers.py"])

    async def next(self) -> list[str]:
        return await self._queue.get()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_all_are_started_anew_after_a_change(family: Family):
    changes = Changes()
    family.start("a", "b", changes=changes)
    for times in (1, 2, 3):
        await family.begun("a", times)
        await family.begun("b", times)
        if times < 3:
            changes.happen()
    assert family.count("a", "SIGTERM") == family.count("b", "SIGTERM") == 2
    family.signal()
    assert await family.code() == 0


async def test_one_that_cannot_start_waits_for_the_next_change(family: Family):
    changes = Changes()
    family.plan("a", works=False, code=2)
    family.start("a", changes=changes)
    await family.begun("a")
    family.plan("a")
    changes.happen()
    await family.begun("a", 2)
    family.plan("a", works=False, code=2)
    changes.happen()
    await family.begun("a", 3)
    family.signal()
    await family.code()
    assert family.count("a", "began") == 3


async def test_a_drain_for_a_change_is_short(family: Family, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_RELOAD_GRACE", 0.1)
    monkeypatch.setattr(module, "_FORCED_GRACE", 0.1)
    changes = Changes()
    family.plan("a", deaf=1)
    family.plan("b", deaf=100)
    family.start("a", "b", changes=changes)
    await family.begun("a")
    await family.begun("b")
    each_signal_is_heard(family, "a", monkeypatch)
    changes.happen()
    await family.begun("a", 2)
    await family.begun("b", 2)
    first = family.notes[0][2]
    assert [what for _, what, pid in family.notes if pid == first] == ["began", "SIGTERM", "SIGTERM"]
    for name in "ab":
        os.kill(family.pid(name), signal.SIGKILL)
    family.signal()
    assert await family.code() == 0


def each_signal_is_heard(family: Family, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the parent holds each signal back until that sibling has noted all before: two that come before a
    process runs are one to it, and on a busy machine it may not run for longer than a short grace.
    """
    assert family.parent is not None
    send = family.parent._send
    sent = family.count(name, "SIGTERM")

    def when_heard(number: signal.Signals, *only: asyncio.subprocess.Process) -> None:
        nonlocal sent
        deadline = time.monotonic() + PATIENCE
        while family.count(name, "SIGTERM") < sent:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        send(number, *only)
        sent += number == signal.SIGTERM

    monkeypatch.setattr(family.parent, "_send", when_heard)


PARENT = f"""
import asyncio, sys
from atlas_grpc.process.siblings import Siblings
asyncio.run(Siblings([sys.executable, {str(CHILD)!r}, sys.argv[1]], ["a", "b"]).run())
"""


async def test_siblings_end_with_a_parent_that_is_killed(family: Family):
    family.plan("a")
    family.plan("b")
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(family.folder))
    await family.begun("a")
    await family.begun("b")
    parent.kill()
    await parent.wait()
    await until(lambda: {note[:2] for note in family.notes} >= {("a", "orphaned"), ("b", "orphaned")})


async def test_one_that_cannot_be_started_now_is_started_later(family: Family, monkeypatch: pytest.MonkeyPatch):
    real = asyncio.create_subprocess_exec
    failures = {2: errno.EAGAIN, 3: errno.ENOMEM, 5: errno.EMFILE}
    """By the number of the start: 1 is of a, 4 of b, 6 of a again."""
    starts = itertools.count(1)

    async def start(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        if (number := next(starts)) in failures:
            raise OSError(failures[number], os.strerror(failures[number]))
        return await real(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    family.start("a", "b")
    await family.begun("a")
    await family.begun("b")
    os.kill(family.pid("a"), signal.SIGKILL)
    await family.begun("a", 2)
    assert next(starts) == 7
    family.signal()
    assert await family.code() == 0
