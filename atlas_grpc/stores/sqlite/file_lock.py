"""One server per file: an exclusive lock on a file beside it, which also says who holds it.

The lock belongs to the open file and ends with the process, however that ends. The database itself must not be opened
for this: closing any descriptor of it would drop SQLite's own locks in this process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from ...errors import FailedPrecondition

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        # Beyond what is written, so that others can read who holds it.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """A held lock."""

    def __init__(self, path: str) -> None:
        """Takes the lock of a database. Raises FailedPrecondition when another store holds it."""
        self._file = Path(f"{path}.lock").open("a+", encoding="utf-8")  # noqa: SIM115 - it stays open while the store is
        try:
            _lock(self._file)
        except OSError:
            self._file.seek(0)
            holder = self._file.read(20).strip() or "unknown"
            self._file.close()
            msg = f"{path} is in use by another server (process {holder}); one file serves one server"
            raise FailedPrecondition(msg, metadata={"path": path, "pid": holder}) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Lets go. The file stays: deleting it could part two who lock it at the same time."""
        self._file.close()
