"""A job followed on stderr: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

from .. import pb
from .exits import clean, say
from .output import show_jsonl, show_value
from .render import log_text, progress_text, state_of, transition_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_IMMOVABLE = ("dumb", "unknown")
"""Terminals that cannot draw a bar: with these, rich shows nothing at all until the end."""
PAUSE = 1.0
"""Seconds between two plain progress lines, when only the numbers differ."""


class Display(Protocol):
    """Something that shows the messages of a watch."""

    def update(self, update: pb.WatchJobResponse) -> None:
        """Shows one message."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was. May be called again."""
        ...


def display_for(output: str, *, quiet: bool) -> Display:
    """The display for an output format."""
    if output == "jsonl":
        return JsonLines()
    if quiet:
        return Silent()
    return Live() if sys.stderr.isatty() and os.environ.get("TERM") not in _IMMOVABLE else Plain()


class Silent:
    """Shows nothing."""

    def update(self, update: pb.WatchJobResponse) -> None:
        pass

    def close(self) -> None:
        pass


class JsonLines(Silent):
    """Every message as a line of JSON on stdout."""

    def update(self, update: pb.WatchJobResponse) -> None:
        show_jsonl(update)
        sys.stdout.flush()


class Plain(Silent):
    """Lines for logs and pipes; progress at most once a second unless its words change."""

    def __init__(self) -> None:
        self._words: str | None = None
        self._last = 0.0

    def update(self, update: pb.WatchJobResponse) -> None:
        for line in _log_lines(update):
            say(line)
        if update.HasField("progress") and self._is_news(update.progress):
            say(f"         progress  {progress_text(update.progress)}")
        for step in update.transitions:
            say(transition_text(step))

    def _is_news(self, progress: pb.Progress) -> bool:
        now = time.monotonic()
        if progress.message == self._words and now - self._last < PAUSE and progress.current < progress.total:
            return False
        self._words, self._last = progress.message, now
        return True


class Live:
    """A bar that moves, with the handler's log lines above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[state]:<9}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("", total=None, state="")
        self._bar.start()

    def update(self, update: pb.WatchJobResponse) -> None:
        for line in _log_lines(update):
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if update.HasField("progress"):
            report = update.progress
            total = report.total if report.total > 0 else None
            done = report.current if total else 0
            self._bar.update(self._task, completed=done, total=total, description=progress_text(report))
        if update.transitions:
            self._bar.update(self._task, state=state_of(update.job))
            if update.transitions[-1].cause not in _EXPECTED:
                self._bar.console.print(
                    transition_text(update.transitions[-1]), markup=False, highlight=False, soft_wrap=True
                )

    def close(self) -> None:
        self._bar.stop()


_EXPECTED = (pb.Transition.SUBMITTED, pb.Transition.BECAME_READY, pb.Transition.STARTED, pb.Transition.SUCCEEDED)


def _log_lines(update: pb.WatchJobResponse) -> list[str]:
    lost = [f"         ({update.dropped_logs} log lines are lost)"] if update.dropped_logs else []
    return lost + [log_text(entry) for entry in update.logs]


def show_result(job: pb.Job) -> None:
    """What the handler returned, on stdout: JSON, or its bytes as they are."""
    from .render import value_of

    kind = job.WhichOneof("output")
    if kind == "result":
        show_value(value_of(job.result), indent=2 if sys.stdout.isatty() else None)
    elif kind == "result_data":
        sys.stdout.flush()
        sys.stdout.buffer.write(job.result_data.data)


def fate_text(job: pb.Job) -> str:
    """How a job ended, on one line."""
    from .render import error_text, seconds_of, span

    took = span(seconds_of(job.finish_time) - seconds_of(job.create_time))
    made = f" after {len(job.attempts)} attempts" if len(job.attempts) > 1 else ""
    error = f": {error_text(job.error)}" if job.HasField("error") else ""
    return f"{state_of(job)} in {took}{made}{error}" if job.id else clean(state_of(job))
