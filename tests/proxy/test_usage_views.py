"""Usage in CSV and in pages, and the periods of quotas: pure."""

from datetime import UTC, datetime

import pytest

from backend_pool.books.quotas import Period, period_at
from backend_pool.books.tables import LedgerEntry, QuotaPeriod
from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from proxy.bodies.books import UsageReport, UsageSums
from proxy.views.usage import bars, usage_lines
from proxy.views.usage_csv import jobs_csv, lines, text


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("kind", "moment", "period"),
    [
        (QuotaPeriod.DAY, ms(2026, 1, 31, 23, 59), Period(ms(2026, 1, 31), ms(2026, 2, 1))),
        (QuotaPeriod.DAY, ms(2026, 1, 31), Period(ms(2026, 1, 31), ms(2026, 2, 1))),
        (QuotaPeriod.MONTH, ms(2026, 1, 31, 12), Period(ms(2026, 1, 1), ms(2026, 2, 1))),
        (QuotaPeriod.MONTH, ms(2026, 12, 1), Period(ms(2026, 12, 1), ms(2027, 1, 1))),
        (QuotaPeriod.MONTH, ms(2028, 2, 29, 3), Period(ms(2028, 2, 1), ms(2028, 3, 1))),
    ],
)
def test_periods(kind: QuotaPeriod, moment: int, period: Period) -> None:
    assert period_at(kind, moment) == period


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(name: str) -> None:
    """Spreadsheets run what begins like this; see OWASP, CSV injection."""
    assert text(name) == f"'{name}"
    assert text(f"a{name}") == f"a{name}"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("x;=cmd|' C'!A0;", "x;'=cmd|' C'!A0;"),
        ('x;"=1+1"', 'x;\'"=1+1"'),
        ("x\t@SUM(A1)", "x\t'@SUM(A1)"),
        ("x,\n =1", "x,'\n' =1"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
        ("a;b, c-d=e", "a;b, c-d=e"),
    ],
)
def test_no_cell_is_a_formula_for_those_who_split_elsewhere(name: str, cell: str) -> None:
    """Where the list separator is a semicolon, quotes within a line are no quotes."""
    assert text(name) == cell


def test_cells_are_quoted() -> None:
    assert lines([("a,b", 'c"d', -1.5), ("x", 2)]) == '"a,b","c""d",-1.5\r\n"x",2\r\n'


async def test_jobs_come_by_the_page_until_there_are_no_more() -> None:
    asked: list[int] = []

    async def page(after: int) -> list[LedgerEntry]:
        asked.append(after)
        return [entry(after + 1), entry(after + 2)] if after < 4 else []

    written = [part async for part in jobs_csv(page, {1: "Ann"})]
    assert asked == [0, 2, 4]
    assert [line.split(",")[0] for line in "".join(written).splitlines()] == ['"job"', "1", "2", "3", "4"]
    assert "user 2" in written[1]


def entry(key: int) -> LedgerEntry:
    return LedgerEntry(
        id=key, job_seq=key, prompt_id="p", user_id=key, group_name="", lane=Lane.BATCH, backend="", device="",
        result=JobState.FAILED, attempts=1, created_ms=0, ended_ms=0, day=0, wait_ms=0, load_ms=0, run_ms=0, gpu_ms=0,
    )  # fmt: skip


def sums(key: str, gpu_s: float, jobs: int = 1) -> UsageSums:
    times = {"load_s": 0.0, "run_s": gpu_s, "wait_s": 30.0}
    return UsageSums(key=key, jobs=jobs, succeeded=jobs, failed=0, cancelled=0, gpu_s=gpu_s, **times)


def test_a_chart_has_every_day() -> None:
    """A day without jobs is a gap, and one with very few still shows."""
    rows = [sums("2026-02-27", 1000), sums("2026-03-02", 0.1)]
    report = UsageReport(first="2026-02-27", last="2026-03-02", by="day", total=sums("", 0), rows=rows)
    assert [(bar.day[5:], bar.height) for bar in bars(report)] == [
        ("02-27", 100),
        ("02-28", 0),
        ("03-01", 0),
        ("03-02", 2),
    ]
    none = bars(report.model_copy(update={"rows": []}))
    assert len(none) == 4 and not any(bar.height for bar in none)


def test_lines_of_a_table() -> None:
    first, second = usage_lines([sums("", 90, 3), sums("Ann", 45)], "nobody")
    assert (first.name, first.gpu, first.wait, first.part) == ("nobody", "1 min 30 s", "10 s", 1)
    assert (second.name, second.part) == ("Ann", 0.5)
    assert usage_lines([sums("Ann", 0)], "")[0].part == 0
