"""Usage as CSV for spreadsheets: text cells can be no formula, rows come a page at a time and are bounded in number."""

import csv
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from backend_pool.books.tables import LedgerEntry
from backend_pool.books.usage import Sums

MOST_ROWS: Final = 1_000_000
"""As many as a spreadsheet takes; who wants more asks for fewer days at a time."""
FORMULA: Final = re.compile(r'(^|[;,\t\r\n])(?=[\s"]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])')
"""Where a cell begins, also for a program that splits at semicolons or tabs and so knows nothing of the quotes."""
SUMS_HEAD: Final = ("key", "jobs", "succeeded", "failed", "cancelled", "gpu_s", "load_s", "run_s", "wait_s")
JOBS_HEAD: Final = (
    "job", "prompt_id", "user", "group", "lane", "backend", "device", "result", "attempts", "submitted", "ended",
    "wait_s", "load_s", "run_s", "gpu_s",
)  # fmt: skip

NextPage = Callable[[int], Awaitable[list[LedgerEntry]]]


def text(value: str) -> str:
    """A cell that no spreadsheet takes for a formula: names are anybody's, and they are opened by administrators."""
    return FORMULA.sub(r"\1'", value)


def lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV (RFC 4180), texts in quotes."""
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_NONNUMERIC).writerows(
        [text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return out.getvalue()


def sums_csv(rows: Iterable[Sums]) -> str:
    """A table of sums."""
    return lines([SUMS_HEAD, *(_sums(row) for row in rows)])


async def jobs_csv(page: NextPage, names: Mapping[int, str]) -> AsyncIterator[str]:
    """Every job of a span, a page at a time."""
    yield lines([JOBS_HEAD])
    written, after = 0, 0
    while written < MOST_ROWS and (found := await page(after)):
        yield lines(_job(entry, names) for entry in found)
        written, after = written + len(found), found[-1].id or 0


def _sums(row: Sums) -> Sequence[object]:
    times = (row.gpu_ms, row.load_ms, row.run_ms, row.wait_ms)
    return (row.key, row.jobs, row.succeeded, row.failed, row.cancelled, *map(_seconds, times))


def _job(entry: LedgerEntry, names: Mapping[int, str]) -> Sequence[object]:
    return (
        entry.job_seq,
        entry.prompt_id,
        names.get(entry.user_id, f"user {entry.user_id}"),
        entry.group_name,
        entry.lane.value,
        entry.backend,
        entry.device,
        entry.result.value,
        entry.attempts,
        _moment(entry.created_ms),
        _moment(entry.ended_ms),
        *map(_seconds, (entry.wait_ms, entry.load_ms, entry.run_ms, entry.gpu_ms)),
    )


def _seconds(ms: int) -> float:
    return round(ms / 1000, 3)


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
