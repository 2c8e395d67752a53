"""The conformance suite bites: each store below has one fault, and the named check sees it."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from atlas_grpc.errors import AtlasError, ResumeTokenExpired, Unavailable
from atlas_grpc.model import Ask, Job, LogLine, State, Update
from atlas_grpc.stores.base import Change, Counts, Filter, Kind, Output, Page, StoreListener
from atlas_grpc.stores.memory import MemoryStore
from atlas_grpc.testing import check_store
from atlas_grpc.testing.stores import CHECKS
from tests.conformance.stores.factories import MemoryFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

FAULTS: dict[str, tuple[type[MemoryStore], str]] = {}


def seen_by(*names: str) -> Callable[[type[MemoryStore]], type[MemoryStore]]:
    def register(faulty: type[MemoryStore]) -> type[MemoryStore]:
        for name in names:
            FAULTS[f"{faulty.__name__}-{name}"] = (faulty, name)
        return faulty

    return register


@seen_by("names_belong_to_a_namespace")
class OneNameForAllNamespaces(MemoryStore):
    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        answers: list[Job | None] = []
        for job in jobs:
            named = [id_ for (_, name), id_ in self._keys.items() if name and name == job.spec.request_id]
            answers += [self._jobs[named[0]]] if named else await super().insert([job])
        return answers


@seen_by("a_name_twice_in_one_batch", "a_named_job_is_inserted_once", "a_name_in_a_race")
class NamesAreIgnored(MemoryStore):
    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        self._keys.clear()
        bare = [replace(job, spec=replace(job.spec, request_id="")) for job in jobs]
        await super().insert(bare)
        return list(jobs)


@seen_by("delete_is_compare_and_delete", "the_oldest_finished_go_by_count")
class NamesStayTaken(MemoryStore):
    def _remove(self, job: Job) -> None:
        key = (job.spec.namespace, job.spec.request_id)
        super()._remove(job)
        if job.spec.request_id:
            self._keys[key] = next(iter(self._jobs), "")


@seen_by("put_is_compare_and_set", "one_of_two_writers_wins", "rescue_and_finish_race")
class LastWriterWins(MemoryStore):
    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        stored = [job.version if (job := self._jobs.get(new.id)) else -1 for new in jobs]
        return await super().put(jobs, stored)


@seen_by("put_is_compare_and_set")
class OneStaleSpoilsTheBatch(MemoryStore):
    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        for job, version in zip(jobs, expected, strict=True):
            old = self._jobs.get(job.id)
            if old is None or old.version != version:
                return [False] * len(jobs)
        return await super().put(jobs, expected)


@seen_by("delete_is_compare_and_delete", "what_was_refused_is_not_told")
class DeletesWhateverIsThere(MemoryStore):
    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        return await super().delete([self._jobs.get(job.id, job) for job in jobs])


@seen_by("every_field_survives")
class ForgetsTheCancelReason(MemoryStore):
    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        return [job and replace(job, cancel_reason="") for job in await super().get(ids)]


@seen_by("a_long_life_survives")
class CutsHistory(MemoryStore):
    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        return [job and replace(job, history=job.history[-100:]) for job in await super().get(ids)]


@seen_by("find_by_each_filter_and_all_together")
class AnyLabelWillDo(MemoryStore):
    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        return await super().find(replace(where, labels=dict([*where.labels.items()][:1])), after, limit)


@seen_by("find_by_each_filter_and_all_together")
class BeforeIsInclusive(MemoryStore):
    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        before = where.created_before
        wider = replace(where, created_before=before if before is None else before + 1)
        return await super().find(wider, after, limit)


@seen_by("find_is_newest_first_whatever_the_order_of_inserts")
class ListsByInsertion(MemoryStore):
    def _list(self, spec: Any) -> None:
        self._order.setdefault(spec.namespace, []).append(spec.id)


@seen_by("a_page_may_continue_after_a_job_that_is_gone", "pages_hold_while_jobs_come_and_go")
class PagesNeedTheirJob(MemoryStore):
    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        return await super().find(where, after if after in self._jobs else None, limit)


@seen_by("a_search_that_finds_little_comes_to_its_end")
class GivesUpLooking(MemoryStore):
    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        page = await super().find(where, after, limit)
        return page if page.jobs else Page((), None)


@seen_by("counts_follow_every_step")
class CountsRunningAsReady(MemoryStore):
    async def counts(self) -> Counts:
        counts = await super().counts()
        extra = sum(job.state is State.RUNNING for job in self._jobs.values())
        return replace(counts, queues=tuple(replace(q, depth=q.depth + extra) for q in counts.queues))


class _Claims(MemoryStore):
    """Claims one at a time, chosen by `better`."""

    def better(self, job: Job) -> Any:
        return (-job.spec.priority, job.next_start, job.id)

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        taken: list[Job] = []
        for ask in asks:
            ready = [job for job in self._jobs.values() if job.ready and self.fits(job, ask)]
            for job in sorted(ready, key=self.better)[: min(ask.slots, limit - len(taken))]:
                one = Ask(job.spec.type, 1)
                hidden = [other for other in self._jobs.values() if other.ready and other.id != job.id]
                for other in hidden:
                    self._jobs[other.id] = replace(other, ready=False)
                taken += await super().claim(session, worker, [one], 1)
                for other in hidden:
                    self._jobs[other.id] = other
                    for place in ((other.spec.type, None), (other.spec.type, other.spec.queue)):
                        line = self._ready._lines[place][other.spec.priority]
                        if (other.next_start, other.id) not in line.heap:
                            heapq.heappush(line.heap, (other.next_start, other.id))
        return taken

    def fits(self, job: Job, ask: Ask) -> bool:
        return job.spec.type == ask.type and (ask.queues is None or job.spec.queue in ask.queues)


@seen_by(
    "claims_go_by_priority_then_by_readiness", "the_best_of_all_asks_come_first", "jobs_of_many_asks_come_in_order"
)
class PriorityIsIgnored(_Claims):
    def better(self, job: Job) -> Any:
        return (job.next_start, job.id)


@seen_by("claims_go_by_priority_then_by_readiness", "a_job_that_comes_back_queues_by_its_new_time")
class ClaimsById(_Claims):
    def better(self, job: Job) -> Any:
        return (-job.spec.priority, job.id)


@seen_by("queues_restrict_an_ask")
class NoQueuesMeansAny(_Claims):
    def fits(self, job: Job, ask: Ask) -> bool:
        return job.spec.type == ask.type and (not ask.queues or job.spec.queue in ask.queues)


@seen_by("the_best_of_all_asks_come_first")
class FirstAskFirst(_Claims):
    pass


@seen_by("slots_are_counted_per_ask_and_in_all")
class SlotsAreIgnored(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        return await super().claim(session, worker, [replace(ask, slots=limit) for ask in asks], limit)


@seen_by("slots_are_counted_per_ask_and_in_all")
class TheLimitIsIgnored(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        return await super().claim(session, worker, asks, 1_000)


@seen_by("a_session_that_is_over_claims_nothing")
class AnybodyMayClaim(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        until = self._sessions.get(session)
        self._sessions[session] = self.now() + 1
        try:
            return await super().claim(session, worker, asks, limit)
        finally:
            if until is None:
                del self._sessions[session]
            else:
                self._sessions[session] = until


@seen_by("fences_grow", "a_zombie_is_refused")
class FencesAreAttempts(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        taken = [replace(job, fence=1) for job in await super().claim(session, worker, asks, limit)]
        for job in taken:
            self._jobs[job.id] = job
        return taken


@seen_by("no_job_is_claimed_twice", "a_claim_starts_the_job")
class ClaimsAreNotStored(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        before = dict(self._jobs)
        taken = await super().claim(session, worker, asks, limit)
        await super().put(
            [replace(before[job.id], version=job.version, fence=job.fence) for job in taken],
            [job.version for job in taken],
        )
        return taken


@seen_by("ahead_counts_what_would_be_claimed_before")
class AheadIgnoresPriority(MemoryStore):
    async def ahead(self, job: Job) -> int:
        return sum(other.ready and other.next_start < job.next_start for other in self._jobs.values())


@seen_by("due_comes_in_order")
class DueConsumes(MemoryStore):
    def _restore(self, found: list[Job]) -> None:
        pass


@seen_by("due_comes_in_order")
class DueKnowsNoOrder(MemoryStore):
    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        found, following = await super().due(limit)
        return found[::-1], following


@seen_by("a_moved_timer_counts_anew")
class DueComesTwice(MemoryStore):
    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        found, following = await super().due(limit)
        return [job for job in found for _ in range(2 if job.version > 5 else 1)], following


@seen_by("due_tells_when_to_come_back", "due_comes_in_order")
class DueForgetsTheNext(MemoryStore):
    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        found, _following = await super().due(limit)
        return found, None


@seen_by("timers_of_every_state")
class FinishedJobsHaveNoTimer(MemoryStore):
    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        found, following = await super().due(limit)
        return [job for job in found if not job.state.terminal], following


@seen_by("a_session_lives_while_it_is_renewed")
class RenewRevives(MemoryStore):
    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        known = [name in self._sessions for name in sessions]
        for name, is_known in zip(sessions, known, strict=True):
            if is_known:
                await self.open_session(name, ttl)
        return known


@seen_by("closing_leaves_the_jobs")
class ClosedSessionsAreForgotten(MemoryStore):
    async def expired(self, limit: int) -> list[str]:
        return [name for name in await super().expired(limit) if name in self._sessions]


@seen_by("held_is_what_a_session_runs")
class HeldForgetsNobody(MemoryStore):
    async def held(self, session: str, limit: int) -> list[Job]:
        return [job for job in self._jobs.values() if any(session == "s1" for _ in job.history[1:])][:limit]


@seen_by("a_batch_stands_in_the_feed_job_by_job", "no_gap_while_others_write")
class TheFeedSkips(MemoryStore):
    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        changes, cursor = await super().changes(after, limit)
        return [
            change for change in changes if change.spec.namespace == "markers" or int(change.spec.id[-1], 16) % 5
        ], cursor


@seen_by("several_changes_become_the_latest")
class TheFeedRepeats(MemoryStore):
    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        _changes, end = await super().changes(after, limit)
        entries = [self._feed[at % self._limits.feed_length] for at in range(after, end)]
        jobs = [self._jobs[entry[0]] for entry in entries if isinstance(entry, tuple) and entry[0] in self._jobs]
        return [Change(job.spec, job) for job in jobs], end


@seen_by("a_batch_stands_in_the_feed_in_its_order")
class BatchesAreSorted(MemoryStore):
    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        places = sorted(range(len(jobs)), key=lambda place: jobs[place].id)
        answers = await super().insert([jobs[place] for place in places])
        return [answers[places.index(place)] for place in range(len(jobs))]


@seen_by("a_batch_stands_in_the_feed_in_its_order")
class ClaimsAreAnsweredById(MemoryStore):
    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        return sorted(await super().claim(session, worker, asks, limit), key=lambda job: job.id)


@seen_by("the_clock_is_known_once_open")
class NoTimeBeforeItIsOpen(MemoryStore):
    def now(self) -> int:
        if not self._listeners:
            raise LookupError("not open")
        return super().now()


@seen_by("the_clock_is_known_once_open")
class TimeEndsWithTheStore(MemoryStore):
    async def close(self) -> None:
        await super().close()
        self.now = self._unknown  # type: ignore[method-assign]

    def _unknown(self) -> int:
        raise Unavailable("nobody knows")


@seen_by("put_needs_the_running_token")
class TheVersionIsEnough(MemoryStore):
    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        known = [self._jobs.get(job.id) for job in jobs]
        return await super().put(
            [replace(job, fence=old.fence) if old else job for job, old in zip(jobs, known, strict=True)], expected
        )


@seen_by("deletions_are_told", "no_gap_while_others_write")
class DeletionsAreSilent(MemoryStore):
    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        changes, cursor = await super().changes(after, limit)
        return [change for change in changes if change.job is not None], cursor


@seen_by("a_cursor_that_nobody_gave_is_refused", "a_cursor_that_is_too_old_is_refused")
class OldCursorsAreForgiven(MemoryStore):
    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        try:
            return await super().changes(after, limit)
        except ResumeTokenExpired:
            return [], self._head


@seen_by("head_is_the_place_after_the_newest")
class TheHeadIsAhead(MemoryStore):
    async def head(self) -> int:
        return self._head + 1


@seen_by("only_the_running_token_reports", "a_zombie_is_refused")
class AnyTokenReports(MemoryStore):
    async def report(self, updates: Sequence[Update]) -> list[bool]:
        current = [replace(u, fence=self._jobs[u.job_id].fence) if u.job_id in self._jobs else u for u in updates]
        return await super().report(current)


@seen_by("the_latest_progress_wins")
class TheLargestProgressWins(MemoryStore):
    async def report(self, updates: Sequence[Update]) -> list[bool]:
        kept = []
        for update in updates:
            (now,) = await self.outputs([update.job_id])
            smaller = now.progress and update.progress and update.progress.current < now.progress.current
            kept.append(replace(update, progress=None) if smaller else update)
        return await super().report(kept)


@seen_by("log_lines_are_numbered", "a_log_is_bounded")
class OffsetsStartAtOne(MemoryStore):
    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        return [replace(line, offset=line.offset + 1) for line in await super().logs(job_id, start, limit)]


@seen_by("a_log_is_bounded")
class LogsKeepTheFirst(MemoryStore):
    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        lines = await super().logs(job_id, start, limit)
        return [replace(line, offset=n) for n, line in enumerate(lines)]


@seen_by("outputs_keep_order")
class OutputsKnowNoOrder(MemoryStore):
    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        return await super().outputs(sorted(ids))


class Deaf:
    """Hands on no hint but those it is made to."""

    def __init__(self, listener: StoreListener) -> None:
        self.listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)


@seen_by("hints_arrive", "a_job_that_waits_gives_no_hint_when_it_is_due")
class NeverReady(MemoryStore):
    async def open(self, listener: StoreListener) -> None:
        class NotReady(Deaf):
            def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
                pass

        await super().open(NotReady(listener))


@seen_by("hints_arrive")
class NamesAnotherKind(MemoryStore):
    async def open(self, listener: StoreListener) -> None:
        class Misled(Deaf):
            def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
                self.listener.on_ready([("work", "elsewhere")])

        await super().open(Misled(listener))


@seen_by("a_write_is_told_although_its_caller_is_gone")
class TellsOnlyWhoIsThere(MemoryStore):
    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        listeners, self._listeners = self._listeners, []
        answers = await super().put(jobs, expected)
        self._listeners = listeners
        await asyncio.sleep(0)
        for listener in listeners:
            listener.on_changes([job for job, stored in zip(jobs, answers, strict=True) if stored])
        return answers


@seen_by("hints_arrive")
class ForgetsToSayWhatWasWritten(MemoryStore):
    async def open(self, listener: StoreListener) -> None:
        class Vague(Deaf):
            def on_changes(self, jobs: Sequence[Job]) -> None:
                self.listener.on_news([job.id for job in jobs])

        await super().open(Vague(listener))


@seen_by("a_full_store_says_so", "a_deleted_job_makes_room")
class NeverFull(MemoryStore):
    def _full(self, more: int) -> bool:
        return False


@seen_by("the_oldest_finished_go_by_count", "a_new_run_is_not_forgotten")
class NeverForgets(MemoryStore):
    def _forget_surplus(self, more: int = 0) -> None:
        pass


@seen_by("a_new_run_is_not_forgotten")
class ForgetsByFirstEnd(MemoryStore):
    def _is_latest(self, entry: tuple[int, str, int]) -> bool:
        return entry[1] in self._jobs


@seen_by("the_first_to_end_go_first")
class ForgetsByExpiry(MemoryStore):
    def _forget_surplus(self, more: int = 0) -> None:
        while self._terminal() > self._limits.max_finished:
            done = [job for job in self._jobs.values() if job.state.terminal]
            self._remove(min(done, key=lambda job: job.due or 0))


@seen_by("the_first_to_end_go_first")
class ForgetsByOrderOfPuts(MemoryStore):
    def _forget_surplus(self, more: int = 0) -> None:
        while self._terminal() > self._limits.max_finished:
            ended = [entry[0] for entry in self._feed if isinstance(entry, tuple)]
            self._remove(next(job for id_ in ended if (job := self._jobs.get(id_)) and job.state.terminal))


@seen_by("the_oldest_finished_go_by_size", "results_count_too")
class SizesAreIgnored(MemoryStore):
    def _forget_surplus(self, more: int = 0) -> None:
        self._size = 0

    def _full(self, more: int) -> bool:
        return False


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_grpc.testing.stores._kit.PATIENCE", 0.02)


def _factory(faulty: type[MemoryStore]) -> MemoryFactory:
    factory = MemoryFactory()
    factory.store_type = faulty
    return factory


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_seen(fault: str) -> None:
    faulty, name = FAULTS[fault]
    with pytest.raises((AssertionError, AtlasError, LookupError)):
        await CHECKS[name](_factory(faulty))


async def test_check_store_reports_all_that_failed() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await check_store(_factory(NeverFull))
    notes = sorted(note for error in raised.value.exceptions for note in error.__notes__)
    assert notes == [
        "check: a_deleted_job_makes_room",
        "check: a_full_store_says_so",
        "check: the_oldest_finished_go_by_size",
    ]


async def test_check_store_passes_a_good_store_and_takes_names() -> None:
    await check_store(MemoryFactory())
    await check_store(_factory(NeverFull), only=["hints_arrive"])
    with pytest.raises(KeyError):
        await check_store(MemoryFactory(), only=["no_such_check"])
