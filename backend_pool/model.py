"""Tables of the pool: backends, jobs, the jobs' documents, each user's prompt counter, and who carries the jobs.

A job's large JSON (prompt, outputs) lives in a table of its own so that looking for the next job never reads it.
Times are milliseconds since the epoch.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint, false
from sqlmodel import Field, SQLModel

from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from proxy.base.columns import enum_column

JsonDict = dict[str, Any]


class BackendMode(StrEnum):
    """What the operator wants of a backend, beside its observed health."""

    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"


class Backend(SQLModel, table=True):
    """One GPU ComfyUI instance that jobs run on."""

    __tablename__ = "backends"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    url: str = Field(unique=True, description="Base URL without a trailing slash.")
    source: str = Field(description="registered | settings | engine: who added it.")
    mode: BackendMode = Field(default=BackendMode.ACTIVE, sa_column=enum_column(BackendMode, BackendMode.ACTIVE))
    created_ms: int = Field(sa_type=BigInteger)
    refresh_ms: int = Field(
        default=0,
        sa_type=BigInteger,
        description="When somebody last asked to have its nodes and models read again.",
        sa_column_kwargs={"server_default": "0"},
    )
    labels: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False, server_default="[]"))
    drain_by_ms: int | None = Field(
        default=None, sa_type=BigInteger, description="A draining backend's job is taken away at this moment."
    )
    restart_ms: int = Field(
        default=0,
        sa_type=BigInteger,
        description="When somebody last asked to have it restarted, which waits for its job to end.",
        sa_column_kwargs={"server_default": "0"},
    )
    restarted_ms: int = Field(
        default=0,
        sa_type=BigInteger,
        description="When it was last told to restart. From `restart_ms` on it is on its way back, which clears that.",
        sa_column_kwargs={"server_default": "0"},
    )
    note: str = Field(
        default="",
        sa_column=Column(Text, nullable=False, server_default=""),
        description="What an operator says of it, such as why it is drained.",
    )
    quarantine: str | None = Field(
        default=None, sa_column=Column(Text), description="Why it gets no jobs until a trial job succeeds."
    )
    quarantine_ms: int | None = Field(default=None, sa_type=BigInteger)

    @property
    def key(self) -> int:
        """`id` of a stored row."""
        assert self.id is not None
        return self.id


class Job(SQLModel, table=True):
    """One queued prompt. `prompt_id` is the caller's or ours; upstream ids are fresh for every attempt."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("user_id", "prompt_id"),
        Index("jobs_by_state", "state", "user_id", "number", "seq"),
        Index("jobs_by_user", "user_id", "seq"),
        Index("jobs_by_turn", "state", "user_id", "lane", "priority", "number", "seq"),
        {"sqlite_autoincrement": True},  # a number is never given twice, also after the newest job was deleted
    )

    seq: int | None = Field(default=None, primary_key=True, sa_column_kwargs={"autoincrement": True})
    prompt_id: str
    user_id: int
    client_id: str | None = Field(default=None, description="The tab that submitted it; its events go there.")
    number: float = Field(description="ComfyUI's priority: lower runs first, negative when put in front.")
    state: JobState = Field(default=JobState.QUEUED, sa_column=enum_column(JobState, JobState.QUEUED))
    cancel_requested: bool = False
    attempt: int = Field(default=0, description="Attempts begun.")
    epoch: int = Field(default=0, description="Grows with every assignment; fences an owner that came back late.")
    backend_id: int | None = None
    upstream_id: str | None = Field(default=None, description="prompt_id at the backend, this attempt's own.")
    upstream_client: str | None = Field(default=None, description="clientId at the backend, this attempt's own.")
    workflow_id: str | None = Field(default=None, description="extra_pnginfo.workflow.id; the jobs API filters by it.")
    outputs_count: int = 0
    document_size: int = Field(
        default=0, description="Characters of its document's JSON.", sa_column_kwargs={"server_default": "0"}
    )
    lane: Lane = Field(
        default=Lane.INTERACTIVE,
        sa_column=enum_column(Lane, Lane.INTERACTIVE, server_default=Lane.INTERACTIVE.value),
    )
    priority: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    labels: list[str] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False, server_default="[]"),
        description="The backend must have all of these.",
    )
    vram_mb: int = Field(
        default=0,
        description="The backend must have more than this: it was not enough, or the submitter says so.",
        sa_column_kwargs={"server_default": "0"},
    )
    avoid: list[int] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False, server_default="[]"),
        description="Backends that it brought down or that were too small; it tries others first.",
    )
    freed: bool = Field(
        default=False,
        description="It ran out of memory, and this attempt is on the same backend with its memory freed.",
        sa_column_kwargs={"server_default": false()},
    )
    rendered_ms: int | None = Field(
        default=None, sa_type=BigInteger, description="When the backend ended it; files may still be on their way."
    )
    load_ms: int = Field(
        default=0, description="Loading models, of this attempt.", sa_column_kwargs={"server_default": "0"}
    )
    gpu_ms: int = Field(
        default=0, description="What its user is charged, so far.", sa_column_kwargs={"server_default": "0"}
    )
    created_ms: int = Field(sa_type=BigInteger)
    assigned_ms: int | None = Field(default=None, sa_type=BigInteger)
    started_ms: int | None = Field(default=None, sa_type=BigInteger)
    ended_ms: int | None = Field(default=None, sa_type=BigInteger)
    trail: list[Any] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))

    @property
    def key(self) -> int:
        """`seq` of a stored row."""
        assert self.seq is not None
        return self.seq


class JobDocument(SQLModel, table=True):
    """The JSON of a job, as ComfyUI's queue and history show it."""

    __tablename__ = "job_documents"

    seq: int = Field(primary_key=True, foreign_key="jobs.seq", ondelete="CASCADE")
    prompt: JsonDict = Field(sa_column=Column(JSON, nullable=False), description="Exactly as submitted.")
    extra_data: JsonDict = Field(sa_column=Column(JSON, nullable=False), description="Without API tokens.")
    targets: list[str] = Field(sa_column=Column(JSON, nullable=False), description="outputs_to_execute.")
    outputs: JsonDict = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    meta: JsonDict = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    messages: list[Any] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    files: list[JsonDict] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False),
        description="Files brought home: {source, local, fresh, versions}; written before each gets its name.",
    )
    withheld: list[str] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False, server_default="[]"),
        description="Names of the API tokens that came with it: without them it must not run.",
    )


class PromptCounter(SQLModel, table=True):
    """ComfyUI's prompt `number`, counted per user: another user's activity must not show in it."""

    __tablename__ = "prompt_counters"

    user_id: int = Field(primary_key=True)
    last: int = 0


class DispatchLease(SQLModel, table=True):
    """One row: the server that may give jobs to backends, see `jobs/lease.py`."""

    __tablename__ = "dispatch_lease"

    id: int = Field(primary_key=True)
    holder: str = ""
    epoch: int = Field(default=0, description="Grows each time it is taken.")
    until_ms: int = Field(default=0, sa_type=BigInteger)
