"""Groups as the running server uses them: everybody's share, quota and reservations, in memory.

Rows are the truth and are read again when somebody changed them here and every few seconds; `on_change` rings then.
What ending jobs are charged counts at once, until it is found in the ledger.
Answers without waiting, so that the dispatcher may ask for each job. Changes no row.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from backend_pool.books import group_rows, reservations
from backend_pool.books.quotas import Quota, Used, period_at
from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.books.tables import Group, LedgerEntry, QuotaPeriod, Reservation, UserChoice
from backend_pool.lane import Lane
from backend_pool.model import Job
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings

log = events(__name__)
often = Repeated(log)

LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class _Rows:
    groups: dict[int, Group] = field(default_factory=dict)
    members: dict[int, int] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    used: dict[tuple[QuotaPeriod, str], int] = field(default_factory=dict)
    lanes: dict[int, Lane] = field(default_factory=dict)
    booked: frozenset[int] = frozenset()
    """Of the jobs whose charges were known, those that `used` counts."""


class Groups:
    """Implements backend_pool.books.shares.Shares."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._reading = asyncio.Lock()
        self._used = Used()
        self._rows = _Rows()
        self._seen: object = None
        self._nobody = Share(
            running_limit=settings.running_limit,
            queue_limit=settings.queue_limit,
            priority_limit=settings.priority_limit,
            run_limit_s=settings.run_limit_s,
        )
        self._shares: dict[int, Share] = {}
        self._told: dict[int, str] = {}
        self._charges: dict[int, tuple[str, int]] = {}
        """By job that is not in the ledger as it was last read: group and GPU milliseconds."""
        self._extra: Counter[str] = Counter()
        """Their sums by group."""
        self.on_change: list[Callable[[], None]] = []
        self.on_quota: list[Callable[[list[int]], None]] = []
        """Hears of users whose group comes near its quota, has used it up, or may go on."""

    async def watch(self) -> None:
        """Keep in step with the rows, for ever."""
        while True:
            try:
                await self.reload()
            except Exception as error:  # what is known holds until then
                often.error("groups could not be read", error=repr(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def reload(self) -> None:
        """Read the rows; rings `on_change` when somebody may do more or less than before."""
        async with self._reading:
            known = list(self._charges)
            self._take(await self._db.read(lambda s: self._read(s, known)))

    def charged(self, job: Job, gpu_ms: int | None) -> None:
        """What a job that ends, or has rendered, is charged counts from now on; None: it is not charged after all."""
        group = self._rows.groups.get(self._rows.members.get(job.user_id, 0))
        if gpu_ms is not None and group is not None and group.quota_s is not None:
            self._charges[job.key] = (group.name, gpu_ms)
        elif self._charges.pop(job.key, None) is None:
            return
        self._look()

    def _take(self, rows: _Rows) -> None:
        self._rows, self._shares = rows, {key: self._share(group) for key, group in rows.groups.items()}
        limited = {group.name for group in rows.groups.values() if group.quota_s is not None}
        charges = self._charges.items()
        self._charges = {seq: one for seq, one in charges if seq not in rows.booked and one[0] in limited}
        self._look()

    def _look(self) -> None:
        """Tell whom it concerns what has changed."""
        rows, self._extra = self._rows, Counter()
        for name, gpu_ms in self._charges.values():
            self._extra[name] += gpu_ms
        self._warn()
        # Usage changes all the time, and matters when it stops a group or lets it go on.
        stopped = {key for key, group in rows.groups.items() if (quota := self._quota(group)) and quota.exhausted}
        kept = [(row.id, row.group_id, row.begin_ms, row.end_ms, row.backends, row.labels) for row in rows.reservations]
        seen = (self._shares, rows.members, kept, stopped)
        changed, self._seen = seen != self._seen, seen
        if changed:
            for ring in self.on_change:
                ring()

    def share(self, user_id: int) -> Share:
        """What the user may take."""
        return self._shares.get(self._rows.members.get(user_id, 0), self._nobody)

    def lane(self, user_id: int) -> Lane:
        """Which lane the user's jobs go into, unless they say otherwise."""
        return self._rows.lanes.get(user_id, Lane.INTERACTIVE)

    async def choose_lane(self, user_id: int, lane: Lane) -> None:
        """The user's own choice, for jobs submitted from now on."""

        def work(session: Session) -> None:
            row = session.get(UserChoice, user_id) or UserChoice(user_id=user_id, lane=lane)
            row.lane = lane
            session.add(row)

        await self._db.write(work)
        await self.reload()

    def quota(self, user_id: int) -> Quota | None:
        """How the user's group stands; None without a quota."""
        return self.quota_of(self._rows.members.get(user_id))

    def quota_of(self, group_id: int | None) -> Quota | None:
        """How a group stands; None without a quota."""
        group = self._rows.groups.get(group_id or 0)
        return None if group is None else self._quota(group)

    def blocked(self, user_id: int) -> str | None:
        """Why none of the user's jobs may start now; None when they may."""
        quota = self.quota(user_id)
        return f"{quota.used_up} It goes on at {quota.resets}." if quota and quota.exhausted else None

    def reserved(self, backend_id: int, labels: Iterable[str], now_ms: int) -> Reserved | None:
        """Which group has the backend at that moment, else which one has it next."""
        if not self._rows.reservations:
            return None
        return reservations.reserved(self._rows.reservations, backend_id, labels, now_ms)

    def upcoming(self) -> tuple[Reservation, ...]:
        """All reservations that are not past, the next one first."""
        now = now_ms()
        return tuple(row for row in self._rows.reservations if row.end_ms > now)

    def name(self, group_id: int | None) -> str:
        """The group's name; empty for none."""
        group = self._rows.groups.get(group_id or 0)
        return group.name if group else ""

    def _read(self, session: Session, charged: list[int]) -> _Rows:
        groups = group_rows.everything(session)
        used: dict[tuple[QuotaPeriod, str], int] = {}
        booked: frozenset[int] = frozenset()
        if any(group.quota_s is not None for group in groups):
            # Before the sums: what is booked in between counts twice until the next look, rather than not at all.
            found = select(LedgerEntry.job_seq).where(col(LedgerEntry.job_seq).in_(charged))
            booked = frozenset(session.exec(found).all()) if charged else booked
            self._used.read(session, now_ms())
            used = {(kind, name): total for kind in QuotaPeriod for name, total in self._used.of(kind).items()}
        return _Rows(
            groups={group.id or 0: group for group in groups},
            members=group_rows.members(session),
            reservations=tuple(reservations.everything(session)),
            used=used,
            lanes={choice.user_id: choice.lane for choice in session.exec(select(UserChoice)).all()},
            booked=booked,
        )

    def _share(self, group: Group) -> Share:
        nobody = self._nobody
        return Share(
            group=group.name,
            group_id=group.id,
            weight=group.weight,
            running_limit=group.running_limit or nobody.running_limit,
            queue_limit=group.queue_limit or nobody.queue_limit,
            priority_limit=group.priority_limit,
            run_limit_s=group.run_limit_s or nobody.run_limit_s,
            labels=frozenset(group.labels),
        )

    def _quota(self, group: Group) -> Quota | None:
        if group.quota_s is None:
            return None
        period = period_at(group.quota_period, now_ms())
        used_ms = self._rows.used.get((group.quota_period, group.name), 0) + self._extra[group.name]
        return Quota(
            group=group.name,
            used_s=used_ms / 1000,
            limit_s=group.quota_s,
            warn_percent=group.quota_warn_percent,
            period=group.quota_period,
            begin_ms=period.begin_ms,
            end_ms=period.end_ms,
        )

    def _warn(self) -> None:
        """Once per group and period when it comes near its quota, when nothing is left, and when it may go on."""
        for key, group in self._rows.groups.items():
            quota = self._quota(group)
            level = _level(quota)
            known = self._told.get(key, "")
            self._told[key] = level
            if level == known:
                continue
            users = [user for user, own in self._rows.members.items() if own == key]
            if quota is not None and level:
                log.warning(level, group=group.name, used_s=round(quota.used_s), limit_s=round(quota.limit_s))
            for tell in self.on_quota:
                tell(users)
        for gone in self._told.keys() - self._rows.groups.keys():
            del self._told[gone]


def _level(quota: Quota | None) -> str:
    if quota is None or not quota.near:
        return ""
    return "quota is used up" if quota.exhausted else "quota is nearly used up"
