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


def job_logger(output: Output) -> logging.Logger:
    """A logger that no other has to do with."""
    logger = logging.Logger("atlas.job")  # noqa: LOG001 - outside of the tree that all jobs of the process share
    logger.addHandler(JobLogHandler(output))
    return logger
