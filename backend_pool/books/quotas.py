"""Quotas: GPU-seconds that the users of a group may take together in a day or month of UTC. Pure but for the sums.

What counts is what the ledger charged to the group in the period: running jobs count once they end. None is stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select

from backend_pool.books.ledger import day_of
from backend_pool.books.tables import LedgerEntry, QuotaPeriod
from proxy.base.clock import DAY_MS, now_ms
from proxy.base.errors import TooManyRequests

NOW = {QuotaPeriod.DAY: "today", QuotaPeriod.MONTH: "this month"}


class QuotaUsed(TooManyRequests):
    """The group has had its GPU time for this period."""

    kind = "quota_exceeded"

    def __init__(self, quota: "Quota", contact: str) -> None:
        super().__init__(
            notice(quota, contact) or "",
            f"{quota.used_s:.0f} of {quota.limit_s:.0f} GPU-seconds used",
        )
        self.quota = quota

    @property
    def retry_after_s(self) -> int:
        """For the Retry-After header."""
        return max(1, (self.quota.end_ms - now_ms()) // 1000 + 1)

    def body(self) -> dict[str, Any]:
        """ComfyUI's error object with the figures."""
        body = super().body()
        quota = self.quota
        figures = {"used_s": round(quota.used_s, 1), "limit_s": quota.limit_s, "resets_ms": quota.end_ms}
        body["error"]["extra_info"] = {"group": quota.group, **figures}
        body["node_errors"] = {}
        return body


def notice(quota: "Quota", contact: str) -> str | None:
    """What its users should know of it now, if anything."""
    if quota.exhausted:
        return f"{quota.used_up} It goes on at {quota.resets}. For more, ask {contact}."
    if quota.near:
        part = 100 * quota.used_s / quota.limit_s
        return f"Your group {quota.group} has used {part:.0f} % of its GPU time; it is renewed at {quota.resets}."
    return None


@dataclass(frozen=True)
class Period:
    """From `begin_ms` until before `end_ms`."""

    begin_ms: int
    end_ms: int


@dataclass(frozen=True)
class Quota:
    """How a group stands in the present period."""

    group: str
    used_s: float
    limit_s: float
    warn_percent: int
    period: QuotaPeriod
    begin_ms: int
    end_ms: int

    @property
    def left_s(self) -> float:
        """What is left of it."""
        return max(0.0, self.limit_s - self.used_s)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return self.used_s >= self.limit_s

    @property
    def near(self) -> bool:
        """Whether it is time to warn: also once nothing is left."""
        return self.used_s >= self.limit_s * self.warn_percent / 100

    @property
    def used_up(self) -> str:
        """A sentence for those who wait."""
        return f"Your group {self.group} has used its GPU time for {NOW[self.period]}."

    @property
    def resets(self) -> str:
        """When the next period begins, for people."""
        moment = datetime.fromtimestamp(self.end_ms / 1000, UTC)
        return f"{moment:%H:%M} UTC" if self.period is QuotaPeriod.DAY else f"{moment:%d %B %H:%M} UTC"

    @property
    def header(self) -> str:
        """For `X-Cluster-Quota`."""
        return f"used={self.used_s:.0f}; limit={self.limit_s:.0f}; resets={self.end_ms // 1000}"


def period_at(kind: QuotaPeriod, moment_ms: int) -> Period:
    """The UTC day or month that holds the moment."""
    day = datetime.fromtimestamp(moment_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is QuotaPeriod.DAY:
        return Period(_ms(day), _ms(day + timedelta(days=1)))
    first = day.replace(day=1)
    return Period(_ms(first), _ms((first + timedelta(days=32)).replace(day=1)))


class Used:
    """GPU milliseconds by group, this day and this month. A month's days before yesterday are summed once only."""

    def __init__(self) -> None:
        self._settled: tuple[int, int] = (0, 0)
        self._before: dict[str, int] = {}
        self._sums: dict[QuotaPeriod, dict[str, int]] = {}

    def read(self, session: Session, moment_ms: int) -> None:
        """Sum up what the ledger has."""
        today, month = day_of(moment_ms), day_of(period_at(QuotaPeriod.MONTH, moment_ms).begin_ms)
        # What ended before midnight may be written after it, so yesterday is still open.
        yesterday = max(month, day_of(moment_ms - DAY_MS))
        if self._settled != (month, yesterday):
            self._before, self._settled = _sums(session, month, yesterday), (month, yesterday)
        day = _sums(session, today, today + 1)
        latest = [self._before, _sums(session, yesterday, today), day]
        names = {name for part in latest for name in part}
        self._sums = {
            QuotaPeriod.DAY: day,
            QuotaPeriod.MONTH: {name: sum(part.get(name, 0) for part in latest) for name in names},
        }

    def of(self, kind: QuotaPeriod) -> Mapping[str, int]:
        """By name of the group, as last read."""
        return self._sums.get(kind, {})


def _sums(session: Session, first: int, before: int) -> dict[str, int]:
    query = select(LedgerEntry.group_name, func.sum(LedgerEntry.gpu_ms)).where(
        LedgerEntry.day >= first, LedgerEntry.day < before, LedgerEntry.group_name != ""
    )
    # PostgreSQL's sum of big integers is a Decimal.
    return {name: int(total) for name, total in session.exec(query.group_by(col(LedgerEntry.group_name))).all()}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
