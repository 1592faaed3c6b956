"""Bodies and answers of the JSON API about groups, reservations and usage. Times are milliseconds since the epoch."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from backend_pool.books.tables import QuotaPeriod
from backend_pool.lane import Lane
from proxy.bodies.models import Answer, Body


def _listed(given: object) -> object:
    """A form sends `a, b`."""
    return [word for part in given.split(",") if (word := part.strip())] if isinstance(given, str) else given


def _filled(given: object) -> object:
    """An empty field of a form is none."""
    return None if given == "" else given


Words = Annotated[list[str], BeforeValidator(_listed)]
Limit = Annotated[float | None, BeforeValidator(_filled)]
Count = Annotated[int | None, BeforeValidator(_filled)]


class QuotaInfo(Answer):
    """GPU-seconds that a group may use in a period, in UTC."""

    group: str
    used_s: float
    limit_s: float
    left_s: float
    period: QuotaPeriod
    resets_ms: int
    near: bool = Field(description="Most of it is used.")
    exhausted: bool = Field(description="Nothing is left: new jobs are refused, waiting ones wait.")
    notice: str | None = Field(description="What its users should know, when `near`.")


class ShareInfo(Answer):
    """What the caller may take of the pool."""

    group: str = Field(description="Empty for none.")
    weight: float
    running_limit: int
    queue_limit: int
    priority_limit: int
    run_limit_s: float | None
    labels: list[str]
    lane: Lane = Field(description="Where jobs go that do not say.")
    quota: QuotaInfo | None


class ShareChange(Body):
    """What users choose themselves."""

    lane: Lane


class MemberInfo(Answer):
    """A user of a group."""

    id: int
    name: str


class GroupInfo(Answer):
    """A group; null means the setting's limit."""

    id: int
    name: str
    weight: float
    running_limit: int | None
    queue_limit: int | None
    priority_limit: int
    run_limit_s: float | None
    labels: list[str]
    quota_s: float | None
    quota_period: QuotaPeriod
    quota_warn_percent: int
    quota: QuotaInfo | None
    members: list[MemberInfo]


class GroupList(Answer):
    """All groups by name."""

    groups: list[GroupInfo]


class GroupChange(Body):
    """Fields to change; null takes a limit back to the setting's, or a quota away."""

    weight: float = 1.0
    running_limit: Count = None
    queue_limit: Count = None
    priority_limit: int = 0
    run_limit_s: Limit = None
    labels: Words = Field([])
    quota_s: Limit = None
    quota_period: QuotaPeriod = QuotaPeriod.DAY
    quota_warn_percent: int = 80


class NewGroup(GroupChange):
    """A group to be made."""

    name: str = Field(max_length=256)


class NewMember(Body):
    """A user by name, to be in this group and in no other."""

    user: str = Field(max_length=256)


class ReservationInfo(Answer):
    """Some backends are one group's for a while."""

    id: int
    group_id: int
    group: str
    backends: list[int]
    backend_names: list[str] = Field(description="Of those that still exist.")
    labels: list[str]
    begin_ms: int
    end_ms: int
    active: bool
    note: str


class ReservationList(Answer):
    """Reservations that are not past, the next one first."""

    reservations: list[ReservationInfo]


class NewReservation(Body):
    """A reservation to be made: backends by name or id, or by labels; ISO 8601 times with a zone."""

    group: str = Field(max_length=256, description="Name or id.")
    backends: Words = Field([])
    labels: Words = Field([])
    begin: AwareDatetime
    end: AwareDatetime
    note: str = Field("", max_length=256)


class UsageSums(Answer):
    """Jobs that ended within a span of days, and what they took; GPU-seconds are what is charged."""

    key: str = Field(description="User, group, backend or day (2026-01-31); empty for the total, or for none.")
    jobs: int
    succeeded: int
    failed: int
    cancelled: int
    gpu_s: float
    load_s: float = Field(description="Loading models, last attempts.")
    run_s: float = Field(description="From the backends' beginning to their end, last attempts.")
    wait_s: float = Field(description="In the queue.")


class UsageReport(Answer):
    """Sums by one thing, over whole days of UTC."""

    first: str
    last: str
    by: Literal["user", "group", "day", "backend"]
    total: UsageSums
    rows: list[UsageSums]


def milliseconds(moment: datetime) -> int:
    """Since the epoch."""
    return int(moment.timestamp() * 1000)
