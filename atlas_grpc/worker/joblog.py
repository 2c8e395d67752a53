"""From Python's logging to a job's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..model import Severity

if TYPE_CHECKING:
    from .output import Output

_LEVELS = ((logging.ERROR, Severity.ERROR), (logging.WARNING, Severity.WARNING), (logging.INFO, Severity.INFO))


class JobLogHandler(logging.Handler):
    """Makes a line of each record, with its traceback if it has one."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            severity = next((found for level, found in _LEVELS if record.levelno >= level), Severity.DEBUG)
            self._output.log(severity, self.format(record))
        except Exception:
            self.handleError(record)


class JobLogger(logging.Logger):
    """Outside of the tree of loggers that all jobs of the process share; those below it make lines of the same log."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._below: dict[str, JobLogger] = {}

    def getChild(self, suffix: str) -> JobLogger:  # noqa: N802 - the name is logging's
        """The logger of that name below this one."""
        child = self._below.get(suffix)
        if child is None:
            child = self._below[suffix] = JobLogger(f"{self.name}.{suffix}")
            child.parent = self
        return child


def job_logger(output: Output) -> logging.Logger:
    """A logger that no other job has to do with."""
    logger = JobLogger("atlas.job")
    logger.addHandler(JobLogHandler(output))
    return logger
