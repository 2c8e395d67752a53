"""The checker of histories finds each kind of fault, and nothing in a history that is good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.history import (
    Acknowledged,
    Answer,
    Execution,
    History,
    Kind,
    Line,
    Reading,
    Step,
    Violation,
    check,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE = [
    Step(1, "PENDING", "SUBMITTED"),
    Step(2, "RUNNING", "STARTED", attempt=1),
    Step(3, "PENDING", "WORKER_LOST", attempt=1),
    Step(4, "RUNNING", "STARTED", attempt=2),
    Step(5, "SUCCESS", "SUCCEEDED", attempt=2),
]
END = Reading("a", 5, "SUCCESS", request_id="ra", result="second")
SECOND_RUN = [
    Step(6, "PENDING", "RETRIED", 2),
    Step(7, "RUNNING", "STARTED", 2, 1),
    Step(8, "FAILED", "ATTEMPT_FAILED", 2, 1),
]


def good() -> History:
    """Two jobs with two watchers each. One was executed twice and lost its first worker, which came back and spoke
    late; its answer was repeated."""
    history = History()
    history.acknowledged += [Acknowledged("ra", "a"), Acknowledged("ra", "a"), Acknowledged("rb", "b")]
    for watcher in ("one", "two"):
        history.steps[watcher, "a"] += LIFE
        history.steps[watcher, "b"] += [Step(1, "PENDING", "SUBMITTED"), Step(2, "CANCELLED", "CANCELLED")]
    history.changes["all", "a"] += [Reading("a", 2, "RUNNING"), Reading("a", 2, "RUNNING"), Reading("a", 5, "SUCCESS")]
    history.changes["all", "b"] += [Reading("b", 2, "CANCELLED")]
    history.readings += [Reading("a", 4, "RUNNING"), END]
    history.final += [END, Reading("b", 2, "CANCELLED", request_id="rb")]
    for fence, result in ((1, None), (2, None), (2, "second"), (1, "first")):
        history.executions.append(Execution("a", fence, result=result, attempt=fence))
    history.answers += [Answer("a", 2, accepted=True), Answer("a", 2, accepted=True), Answer("a", 1, accepted=False)]
    history.lines += [Line("a", 1, 1), Line("a", 2, 2)]
    return history


def kinds(history: History) -> set[Kind]:
    return {found.kind for found in check(history)}


def test_a_good_history_is_good() -> None:
    assert check(good()) == []
    assert check(History()) == []


def test_a_run_that_was_asked_for_is_no_fault() -> None:
    history = good()
    for watcher in ("one", "two"):
        history.steps[watcher, "a"] += SECOND_RUN
    history.changes["all", "a"].append(Reading("a", 8, "FAILED", 2))
    history.final[0] = Reading("a", 8, "FAILED", 2, "ra")
    history.executions.append(Execution("a", 3, 2, attempt=1))
    history.lines.append(Line("a", 1, 3))
    assert check(history) == []


def lost(history: History) -> None:
    history.acknowledged.append(Acknowledged("rc", "c"))


def accepted_twice(history: History) -> None:
    history.acknowledged.append(Acknowledged("ra", "b"))


def stored_twice(history: History) -> None:
    history.final.append(Reading("a2", 1, "SUCCESS", request_id="ra"))
    history.changes["all", "a2"].append(Reading("a2", 1, "SUCCESS"))


def stuck(history: History) -> None:
    history.final.append(Reading("c", 1, "PENDING"))
    history.changes["all", "c"].append(Reading("c", 1, "PENDING"))


def skipped(history: History) -> None:
    del history.steps["two", "a"][2]


def begun_late(history: History) -> None:
    del history.steps["two", "a"][0]


def ended_early(history: History) -> None:
    del history.steps["two", "a"][-1]


def not_told_of_all(history: History) -> None:
    del history.changes["all", "b"]


def not_told_the_end(history: History) -> None:
    history.changes["all", "a"].pop()


def swapped(history: History) -> None:
    steps = history.steps["two", "a"]
    steps[2], steps[3] = steps[3], steps[2]


def repeated(history: History) -> None:
    history.steps["two", "a"].insert(3, LIFE[2])


def told_backwards(history: History) -> None:
    history.changes["all", "a"].append(Reading("a", 2, "RUNNING"))


def step_lost(history: History) -> None:
    history.final[0] = Reading("a", 4, "RUNNING", request_id="ra")


def another_step(history: History) -> None:
    history.steps["two", "a"][2] = Step(3, "RUNNING", "CANCEL_REQUESTED")


def another_cause(history: History) -> None:
    history.steps["two", "a"][2] = Step(3, "PENDING", "RELEASED")


def another_state_read(history: History) -> None:
    history.readings.append(Reading("a", 3, "RUNNING"))


def terminal_left(history: History) -> None:
    for watcher in ("one", "two"):
        history.steps[watcher, "b"].append(Step(3, "RUNNING", "STARTED"))
    history.changes["all", "b"].append(Reading("b", 3, "SUCCESS"))
    history.final[1] = Reading("b", 3, "RUNNING", request_id="rb")


def terminal_left_unwatched(history: History) -> None:
    del history.steps["one", "b"], history.steps["two", "b"]
    history.readings.append(Reading("b", 1, "CANCELLED"))


def two_results(history: History) -> None:
    history.readings.append(END._replace(result="first"))


def stale_result(history: History) -> None:
    history.readings[1] = history.final[0] = END._replace(result="first")


def unknown_result(history: History) -> None:
    history.readings[1] = history.final[0] = END._replace(result="invented")


def ran_twice(history: History) -> None:
    history.executions.append(Execution("a", 2))


def ran_unleased(history: History) -> None:
    history.executions.append(Execution("b", 7))


def fence_went_back(history: History) -> None:
    history.executions.append(Execution("a", 1, attempt=3))


def two_fences(history: History) -> None:
    history.executions.append(Execution("a", 3, attempt=2))


def fence_went_back_in_a_new_run(history: History) -> None:
    history.executions.append(Execution("a", 1, 2, attempt=1))


def ended_result(history: History) -> None:
    """The zombie's fence is the larger one, as after a failover that forgot the claims of a while."""
    history.executions[-1] = Execution("a", 9, result="first", attempt=1)
    history.executions[0] = Execution("a", 9, attempt=1)
    history.readings[1] = history.final[0] = END._replace(result="first")


def zombie_answered(history: History) -> None:
    history.answers.append(Answer("a", 1, accepted=True))


def zombie_answered_alone(history: History) -> None:
    """The one whose result it is died before it was answered."""
    history.answers[:] = [Answer("a", 1, accepted=True)]


def accepted_and_cancelled(history: History) -> None:
    history.executions.append(Execution("b", 5, attempt=1))
    history.executions.append(Execution("b", 5, result="done", attempt=1))
    history.answers.append(Answer("b", 5, accepted=True))


def stale_line(history: History) -> None:
    history.lines.append(Line("a", 2, 1))


def line_of_nobody(history: History) -> None:
    history.lines.append(Line("b", 1, 7))


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lost, Kind.LOST),
        (accepted_twice, Kind.TWICE),
        (stored_twice, Kind.TWICE),
        (stuck, Kind.STUCK),
        (skipped, Kind.GAP),
        (begun_late, Kind.GAP),
        (ended_early, Kind.GAP),
        (not_told_of_all, Kind.GAP),
        (not_told_the_end, Kind.GAP),
        (swapped, Kind.ORDER),
        (repeated, Kind.ORDER),
        (told_backwards, Kind.ORDER),
        (step_lost, Kind.STEP_LOST),
        (another_step, Kind.CONFLICT),
        (another_cause, Kind.CONFLICT),
        (another_state_read, Kind.CONFLICT),
        (terminal_left, Kind.TERMINAL_LEFT),
        (terminal_left_unwatched, Kind.TERMINAL_LEFT),
        (two_results, Kind.TWO_RESULTS),
        (stale_result, Kind.STALE_RESULT),
        (unknown_result, Kind.UNKNOWN_RESULT),
        (ran_twice, Kind.RAN_TWICE),
        (ran_unleased, Kind.RAN_UNLEASED),
        (fence_went_back, Kind.FENCES),
        (two_fences, Kind.FENCES),
        (fence_went_back_in_a_new_run, Kind.FENCES),
        (ended_result, Kind.ENDED_RESULT),
        (zombie_answered, Kind.ACCEPTED_TWICE),
        (zombie_answered_alone, Kind.ACCEPTED_LOST),
        (accepted_and_cancelled, Kind.ACCEPTED_LOST),
        (stale_line, Kind.STALE_WRITE),
        (line_of_nobody, Kind.STALE_WRITE),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[History], None], kind: Kind) -> None:
    history = good()
    plant(history)
    assert kind in kinds(history)


def test_most_faults_are_found_as_what_they_are_alone() -> None:
    alone = (
        (lost, Kind.LOST),
        (skipped, Kind.GAP),
        (another_cause, Kind.CONFLICT),
        (zombie_answered_alone, Kind.ACCEPTED_LOST),
        (stale_line, Kind.STALE_WRITE),
    )
    for plant, kind in alone:
        history = good()
        plant(history)
        assert kinds(history) == {kind}


def test_a_summary_counts_and_shows() -> None:
    found = [Violation(Kind.LOST, f"j{n}", "x") for n in range(9)]
    text = summary(found)
    assert text.startswith("9 x an acknowledged job is not there")
    assert text.count("LOST") == 5
