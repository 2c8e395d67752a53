"""Jobs to the columns of a batch.

Why it looks like this. The driver writes an array element by element, a third to half a microsecond each; with twenty
columns that is most of what a job costs this process. So a column of numbers or short texts goes as one literal,
which a JSON encoder writes in C (a JSON array differs from PostgreSQL's literal by its brackets, and by escapes that
hardly ever occur); a column with one value for all jobs goes as that value alone; documents and readable texts go as
one long string of bytes, with where each begins. The ids are the only array that the driver writes.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from ... import lifecycle
from ...model import State
from .. import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Content, Job

_encode = msgspec.json.Encoder().encode
_COLUMN = re.compile(r"\{column (\d+) (\w+)\}")
_NUL_SHOWN = "\N{SYMBOL FOR NULL}"


def text(value: str) -> str:
    """As PostgreSQL can keep it: it has no NUL."""
    return value.replace("\x00", _NUL_SHOWN) if "\x00" in value else value


def literal(values: list[Any]) -> str:
    """A column as an array literal. One that has the same value for all jobs is of one element; others begin with a
    space, which tells them apart without reading them twice."""
    if values.count(values[0]) == len(values):
        values = values[:1]
        mark = ""
    else:
        mark = " "
    data = _encode(values)
    if b"\\" in data:
        return mark + "{" + ",".join(map(_quoted, values)) + "}"
    return mark + "{" + data[1:-1].decode() + "}"


def expanded(statement: str) -> str:
    """A statement whose `{column 4 bigint}` is the array of the literal in parameter 4."""
    whole, single = r"$\1::text::\2[]", r"array_fill(($\1::text::\2[])[1], array[$1::int])"
    return _COLUMN.sub(rf"case when left($\1::text, 1) = ' ' then {whole} else {single} end", statement)


def _quoted(value: str | None) -> str:
    if value is None:
        return "null"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Packer:
    """Byte strings of several columns, one after the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def column(self, values: Sequence[bytes | None]) -> tuple[str, str]:
        """Where the values of a column begin, counted from 1, and how long they are; null for None."""
        sizes = [None if value is None else len(value) for value in values]
        lengths = [size or 0 for size in sizes]
        starts = list(accumulate(lengths, initial=self._size + 1))
        self._size = starts.pop() - 1
        self._parts += [value for value in values if value]
        # Not `literal`: the starts of a column of empty values are one value, but not shared ones.
        return "{" + _encode(starts)[1:-1].decode() + "}", literal(sizes)

    def packed(self) -> bytes:
        return b"".join(self._parts)


def _readable(content: Content | None) -> bytes | None:
    """The text of JSON that can stand in a column."""
    if content is None or content.content_type is not None:
        return None
    data = content.data
    if b"\x00" in data:
        return None
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return None
    return data


def is_new(job: Job) -> bool:
    """Whether insert.sql keeps all of a job: it has not begun."""
    return (
        job.state is State.PENDING and job.attempt == 0 and job.fence == 0 and job.result is None and job.error is None
    )


def of_new(jobs: Sequence[Job], places: Sequence[int]) -> tuple[Any, ...]:
    """The arguments of insert.sql."""
    specs = [job.spec for job in jobs]
    payloads = [_readable(spec.payload) for spec in specs]
    packer = _Packer()
    payload = packer.column(payloads)
    spec_doc = packer.column(
        [codec.encode_spec(spec, payload=shown is None) for spec, shown in zip(specs, payloads, strict=True)]
    )
    state_doc = packer.column([codec.encode_state(job) for job in jobs])
    return (
        len(jobs),
        [spec.id for spec in specs],
        packer.packed(),
        literal([spec.namespace for spec in specs]),
        literal([spec.type for spec in specs]),
        literal([spec.queue for spec in specs]),
        literal([spec.priority for spec in specs]),
        literal([spec.request_id or None for spec in specs]),
        literal([_encode(spec.labels).decode() if spec.labels else None for spec in specs]),
        literal([spec.create_time for spec in specs]),
        literal([spec.retention for spec in specs]),
        *payload,
        *spec_doc,
        literal([job.version for job in jobs]),
        literal([job.next_start for job in jobs]),
        literal([job.due for job in jobs]),
        literal([spec.attempt_timeout for spec in specs]),
        literal([lifecycle.deadline(job) for job in jobs]),
        literal([job.ready for job in jobs]),
        "{" + ",".join(map(str, places)) + "}",
        *state_doc,
    )


def of_moved(jobs: Sequence[Job], expected: list[int], places: Sequence[int]) -> tuple[Any, ...]:
    """The arguments of put.sql."""
    results = [_readable(job.result) for job in jobs]
    errors = [job.error for job in jobs]
    packer = _Packer()
    result = packer.column(results)
    state_doc = packer.column(
        [codec.encode_state(job, result=shown is None) for job, shown in zip(jobs, results, strict=True)]
    )
    return (
        len(jobs),
        [job.spec.id for job in jobs],
        packer.packed(),
        literal(expected),
        literal([job.version for job in jobs]),
        literal([job.state for job in jobs]),
        literal([job.ready for job in jobs]),
        literal([job.next_start for job in jobs]),
        literal([job.due for job in jobs]),
        literal([text(job.session) for job in jobs]),
        literal([text(job.worker) for job in jobs]),
        literal([job.fence for job in jobs]),
        literal([job.attempt for job in jobs]),
        literal([job.attempt_start for job in jobs]),
        literal([lifecycle.deadline(job) for job in jobs]),
        literal([None if error is None else text(error.reason) for error in errors]),
        literal([None if error is None else text(error.message) for error in errors]),
        "{" + ",".join(map(str, places)) + "}",
        *result,
        *state_doc,
    )
