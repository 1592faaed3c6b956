"""Tables about who may use how much and who used what: groups, reservations, the ledger, virtual time, learned times.

Times are milliseconds since the epoch, durations have their unit in the name.
"""

from enum import StrEnum

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer
from sqlmodel import Field, SQLModel

from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from proxy.base.columns import enum_column


class QuotaPeriod(StrEnum):
    """What a quota of GPU-seconds is counted over, in UTC."""

    DAY = "day"
    MONTH = "month"


class Group(SQLModel, table=True):
    """Users who share a weight and limits; None means the setting's default. A user is in one group or in none."""

    __tablename__ = "groups"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    weight: float = 1.0
    running_limit: int | None = None
    queue_limit: int | None = None
    priority_limit: int = 0
    run_limit_s: float | None = None
    labels: list[str] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False),
        description="Its jobs run on backends that have all of these labels only.",
    )
    quota_s: float | None = Field(default=None, description="GPU-seconds that the whole group may use in a period.")
    quota_period: QuotaPeriod = Field(default=QuotaPeriod.DAY, sa_column=enum_column(QuotaPeriod, QuotaPeriod.DAY))
    quota_warn_percent: int = 80
    created_ms: int = Field(sa_type=BigInteger)


class GroupMember(SQLModel, table=True):
    """Which group a user is in."""

    __tablename__ = "group_members"

    user_id: int = Field(primary_key=True)
    group_id: int = Field(foreign_key="groups.id", ondelete="CASCADE")


class Reservation(SQLModel, table=True):
    """Between two moments these backends run jobs of one group only."""

    __tablename__ = "reservations"

    id: int | None = Field(default=None, primary_key=True)
    group_id: int = Field(sa_column=Column(Integer, ForeignKey("groups.id", ondelete="CASCADE"), nullable=False))
    backends: list[int] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False), description="Ids of backends."
    )
    labels: list[str] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False),
        description="And the backends that have all of these labels; none when empty.",
    )
    begin_ms: int = Field(sa_type=BigInteger)
    end_ms: int = Field(sa_type=BigInteger)
    note: str = ""


class LedgerEntry(SQLModel, table=True):
    """What one ended job took. Written in the transaction that ends the job; outlives the job's history entry."""

    __tablename__ = "ledger"
    __table_args__ = (Index("ledger_by_day", "day", "user_id"), Index("ledger_by_user", "user_id", "ended_ms"))

    id: int | None = Field(default=None, primary_key=True)
    job_seq: int = Field(unique=True)
    prompt_id: str
    user_id: int
    group_name: str = Field(description="The user's group when the job ended; empty for none.")
    lane: Lane = Field(sa_column=enum_column(Lane, Lane.INTERACTIVE))
    backend: str = Field(description="Name of the last backend; empty when none had it.")
    device: str = Field(description="That backend's GPU as it calls it.")
    result: JobState = Field(sa_column=enum_column(JobState, JobState.FAILED))
    attempts: int
    created_ms: int = Field(sa_type=BigInteger)
    ended_ms: int = Field(sa_type=BigInteger)
    day: int = Field(description="Day it ended in UTC, as 20260131.")
    wait_ms: int = Field(sa_type=BigInteger, description="From the submission to the last attempt's assignment.")
    load_ms: int = Field(sa_type=BigInteger, description="Loading models, of the last attempt.")
    run_ms: int = Field(sa_type=BigInteger, description="From the backend's beginning to its end, last attempt.")
    gpu_ms: int = Field(sa_type=BigInteger, description="What its user is charged.")


class UserShare(SQLModel, table=True):
    """A user's virtual time (docs/scheduling.md): weighted GPU-seconds, so that turns survive a restart."""

    __tablename__ = "shares"

    user_id: int = Field(primary_key=True)
    virtual_s: float = 0.0


class UserChoice(SQLModel, table=True):
    """What users choose for all of their jobs, unless a job says otherwise."""

    __tablename__ = "user_choices"

    user_id: int = Field(primary_key=True)
    lane: Lane = Field(sa_column=enum_column(Lane, Lane.INTERACTIVE))


class Timing(SQLModel, table=True):
    """A learned duration: of a kind of workflow on a kind of device, or of loading a model there."""

    __tablename__ = "timings"

    key: str = Field(primary_key=True)
    mean_s: float
    spread_s: float = Field(description="Mean distance from the mean.")
    count: int
    used_ms: int = Field(sa_type=BigInteger)
