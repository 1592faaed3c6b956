"""Usage as pages show it: durations for people, and a bar per day, also for days without any job. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from proxy.bodies.books import UsageReport, UsageSums
from proxy.views.amounts import duration

CHART_HEIGHT = 100
MOST_BARS = 400


@dataclass(frozen=True)
class UsageLine:
    """A line of a table."""

    name: str
    gpu: str
    jobs: int
    failed: int
    wait: str
    load: str
    part: float
    """Of the line that used most, 0 to 1."""


@dataclass(frozen=True)
class Bar:
    """A day in the chart; heights are parts of CHART_HEIGHT."""

    day: str
    time: str
    jobs: int
    height: float


def spell(seconds: float) -> str:
    """`0 s`, `4.2 s`, `2 h 10 min`."""
    return "0 s" if seconds <= 0 else duration(seconds)


def mean_wait(row: UsageSums) -> str:
    """Of all its jobs."""
    return spell(row.wait_s / row.jobs) if row.jobs else spell(0)


def usage_lines(rows: Sequence[UsageSums], nobody: str) -> list[UsageLine]:
    """A table; `nobody` is shown where a key is empty."""
    most = max((row.gpu_s for row in rows), default=0) or 1
    return [
        UsageLine(
            name=row.key or nobody,
            gpu=spell(row.gpu_s),
            jobs=row.jobs,
            failed=row.failed,
            wait=mean_wait(row),
            load=spell(row.load_s),
            part=row.gpu_s / most,
        )
        for row in rows
    ]


def bars(report: UsageReport) -> list[Bar]:
    """One per day from the first to the last, the latest MOST_BARS of them."""
    by_day = {row.key: row for row in report.rows}
    most = max((row.gpu_s for row in report.rows), default=0) or 1
    first, last = date.fromisoformat(report.first), date.fromisoformat(report.last)
    days = [last - timedelta(days=back) for back in range(min((last - first).days + 1, MOST_BARS))]
    return [_bar(day.isoformat(), by_day.get(day.isoformat()), most) for day in reversed(days)]


def _bar(day: str, row: UsageSums | None, most: float) -> Bar:
    if row is None:
        return Bar(day, spell(0), 0, 0)
    # A day with any use must show, however small it is beside the largest.
    height = max(2.0, CHART_HEIGHT * row.gpu_s / most) if row.gpu_s else 0
    return Bar(day, spell(row.gpu_s), row.jobs, round(height, 1))
