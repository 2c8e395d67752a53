"""Turns: few look when a job becomes ready, and none is forgotten."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.engine.turns import Key, Turns
from atlas_grpc.model import Ask
from tests.unit.engine.world import a_world

A: Key = ("a", None)
B: Key = ("b", frozenset({"q"}))


class Waiter:
    def __init__(self, turns: Turns, *keys: Key) -> None:
        self.turns = turns
        self.keys = frozenset(keys)
        self.tried = 0
        self.calls = 0
        turns.wait(self, self.keys)

    def call(self) -> None:
        self.calls += 1

    def look(self, *nothing_left: Key, full: bool = False) -> None:
        self.turns.end(self.turns.begin(self), self.keys, nothing_left, full=full)


def calls(*waiters: Waiter) -> list[int]:
    return [waiter.calls for waiter in waiters]


def test_one_of_those_who_ask_for_the_same_is_called():
    turns = Turns()
    first, second, other = Waiter(turns, A), Waiter(turns, A), Waiter(turns, A, B)
    turns.ready()
    turns.ready()
    assert calls(first, second, other) == [1, 0, 1]
    first.look(A)
    assert calls(first, second, other) == [1, 0, 1]
    assert not turns.may_find(second, second.keys)
    assert turns.may_find(second, other.keys)


def test_two_are_called_when_there_may_be_more():
    turns = Turns()
    waiters = [Waiter(turns, A) for _ in range(6)]
    turns.ready()
    waiters[0].look(full=True)
    assert calls(*waiters) == [1, 1, 1, 0, 0, 0]
    waiters[1].look(full=True)
    assert calls(*waiters) == [1, 1, 1, 1, 1, 0]
    for waiter in waiters[2:5]:
        waiter.look(A)
    assert calls(*waiters) == [1, 1, 1, 1, 1, 0]


def test_a_call_that_is_not_answered_goes_to_the_next():
    turns = Turns()
    first, second, third = (Waiter(turns, A) for _ in range(3))
    turns.ready()
    turns.leave(first)
    assert calls(first, second, third) == [1, 1, 0]
    turns.wait(second, frozenset({B}))
    assert calls(first, second, third) == [1, 1, 1]
    turns.leave(third)
    turns.leave(third)
    turns.ready()
    assert calls(first, second, third) == [1, 2, 1]


def test_who_may_have_been_refused_is_not_called_again_before_there_is_news():
    turns = Turns()
    first, second = Waiter(turns, A), Waiter(turns, A)
    turns.ready()
    version = turns.begin(first)
    first.tried = version
    turns.end(version, first.keys, (), full=False)
    turns.wait(first, first.keys)
    assert calls(first, second) == [1, 1]
    assert not turns.may_find(first, first.keys)
    turns.leave(second)
    assert calls(first, second) == [1, 1]
    turns.ready()
    assert calls(first, second) == [2, 1]


def test_only_those_are_called_who_ask_for_what_became_ready():
    turns = Turns()
    any_queue, of_queue = Waiter(turns, A), Waiter(turns, ("a", frozenset({"p", "q"})))
    of_other_queue, of_other_type = Waiter(turns, ("a", frozenset({"r"}))), Waiter(turns, B)
    waiters = (any_queue, of_queue, of_other_queue, of_other_type)
    for waiter in waiters:
        waiter.look(*waiter.keys)
        turns.wait(waiter, waiter.keys)
    assert not any(turns.may_find(waiter, waiter.keys) for waiter in waiters)
    turns.ready([("a", "q"), ("c", "q")])
    assert calls(*waiters) == [1, 1, 0, 0]
    assert [turns.may_find(waiter, waiter.keys) for waiter in waiters] == [True, True, False, False]
    of_queue.look(*of_queue.keys)
    turns.wait(of_queue, of_queue.keys)
    turns.ready([("b", "q")])
    assert calls(*waiters) == [1, 1, 0, 1]
    turns.ready()
    assert calls(*waiters) == [1, 2, 1, 1]


def test_a_look_is_not_spoilt_by_what_nobody_of_them_asks_for():
    turns = Turns()
    first, second = Waiter(turns, A), Waiter(turns, A)
    turns.ready([("a", "q")])
    version = turns.begin(first)
    turns.ready([("b", "q")])
    turns.end(version, first.keys, [A], full=False)
    assert calls(first, second) == [1, 0]
    assert not turns.may_find(first, first.keys)


def test_kinds_that_come_and_go_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atlas_grpc.engine.turns._MOST_KNOWN", 20)
    turns = Turns()
    (waiter,) = (Waiter(turns, A),)
    waiter.look(A)
    for number in range(1_000):
        key: Key = ("b", frozenset({f"q{number}"}))
        passing = Waiter(turns, key)
        turns.ready([("b", f"q{number}")])
        assert passing.calls == 1
        passing.look(key)
        turns.leave(passing)
    assert len(turns._ready) + len(turns._dry) < 30
    assert not turns._groups
    assert not turns._places


def test_what_became_ready_during_a_look_is_not_forgotten_by_it():
    turns = Turns()
    (only,) = (Waiter(turns, A),)
    turns.ready()
    version = turns.begin(only)
    turns.ready()
    turns.end(version, only.keys, [A], full=False)
    assert turns.may_find(only, only.keys)


ASKED: list[frozenset[Key]] = [
    frozenset({("a", None)}),
    frozenset({("a", frozenset("p")), ("b", frozenset("pq"))}),
    frozenset({("b", frozenset("q"))}),
]


class Session:
    """A session as `leases` drives it: `step` does the next thing that it would do."""

    def __init__(self, turns: Turns, jobs: Counter[tuple[str, str]]) -> None:
        self.turns = turns
        self.jobs = jobs
        self.tried = 0
        self.keys: frozenset[Key] = frozenset()
        self.slots = 1
        self.alive = True
        self.state = "away"
        self.version = 0
        self.got = 0

    def call(self) -> None:
        assert self.state == "waiting"
        self.state = "called"

    def matching(self) -> list[tuple[str, str]]:
        wanted = [(kind, queues) for kind, queues in self.keys]
        return [
            (kind, queue)
            for kind, queue in self.jobs
            if self.jobs[kind, queue] and any(kind == name and (not of or queue in of) for name, of in wanted)
        ]

    def decide(self) -> None:
        if self.turns.may_find(self, self.keys):
            self.version = self.turns.begin(self)
            self.state = "looking"
        else:
            self.state = "waiting"
            self.turns.wait(self, self.keys)

    def step(self) -> bool:
        if self.state == "called":
            self.decide()
        elif self.state == "looking":
            self.got = 0
            while self.alive and self.got < self.slots and (found := self.matching()):
                self.jobs[found[0]] -= 1
                self.got += 1
            self.state = "answered"
        elif self.state == "answered":
            full = self.got == self.slots
            nothing_left = () if full or not (self.got or self.alive) else self.keys
            if not (self.got or self.alive):
                self.tried = self.version
            self.turns.end(self.version, self.keys, nothing_left, full=full)
            if self.got:
                self.state = "away"
            else:
                self.decide()
        else:
            return False
        return True

    def fail(self) -> None:
        if self.state in ("looking", "answered"):
            self.turns.end(self.version, self.keys, (), full=False)
        else:
            self.turns.leave(self)
        self.state = "away"


def some_step(rng: random.Random, sessions: list[Session]) -> None:
    session = rng.choice(sessions)
    what = rng.randrange(12)
    if what == 0:
        kinds = [("ab"[rng.randrange(2)], "pqr"[rng.randrange(3)]) for _ in range(rng.randrange(1, 3))]
        for kind in kinds:
            session.jobs[kind] += rng.choice((0, 0, 1, 2))
        session.turns.ready(rng.choice([None, kinds, kinds, kinds]))
    elif what <= 2 and session.state in ("away", "waiting"):
        session.keys = rng.choice(ASKED)
        session.slots = rng.randrange(1, 3)
        session.state = "away"
        session.decide()
    elif what == 3 and rng.random() < 0.3:
        session.fail()
    elif what == 4 and rng.random() < 0.3:
        session.alive = False
    elif what == 5 and not session.alive:
        session.alive = True
        session.turns.ready()
    else:
        session.step()


@given(st.integers(0, 2**32))
def test_no_job_is_left_while_somebody_waits_who_would_take_it(seed: int) -> None:
    rng = random.Random(seed)
    turns = Turns()
    jobs: Counter[tuple[str, str]] = Counter()
    sessions = [Session(turns, jobs) for _ in range(4)]
    for _ in range(30):
        for _ in range(rng.randrange(20)):
            some_step(rng, sessions)
        for _ in range(200):
            if not sum(session.step() for session in sessions):
                break
        else:
            pytest.fail("they look again and again")
        assert [s.keys for s in sessions if s.state == "waiting" and s.alive and s.matching()] == []


@pytest.mark.parametrize("slow", [False, True])
async def test_a_job_makes_one_of_many_workers_look(slow: bool):
    async with a_world(slow=slow) as world:
        workers = [await world.worker(f"w{number}") for number in range(30)]
        claims = 0
        store = world.engine.store
        claim = store.claim

        async def counted(*args):
            nonlocal claims
            claims += 1
            return await claim(*args)

        store.claim = counted
        leasing = [asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 1)], 1))) for worker in workers]
        await world.clock.settle()
        claims = 0
        for taken in range(1, 11):
            await world.submit()
            await world.clock.settle()
            assert sum(task.done() for task in leasing) == taken
        assert claims <= 30
        for _ in range(40):
            await world.submit()
        await world.clock.settle()
        assert all(task.done() for task in leasing)
