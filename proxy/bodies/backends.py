"""Bodies and answers of the JSON API about backends. Times are milliseconds since the epoch."""

from enum import StrEnum

from pydantic import Field

from backend_pool.backends.phase import Phase
from backend_pool.backends.restart_turn import Stage
from backend_pool.model import BackendMode
from proxy.bodies.models import Answer, Body


class NewBackend(Body):
    """A ComfyUI instance to add to the pool."""

    url: str = Field(max_length=2048)
    name: str | None = Field(None, max_length=256)
    labels: list[str] = Field([], max_length=64, description="Such as `fast` or `gpu=a100`.")


class BackendChange(Body):
    """What is to be otherwise; what is not given stays."""

    mode: BackendMode | None = None
    drain_within_s: float | None = Field(
        None,
        ge=0,
        le=366 * 86_400,
        description="With the mode draining: after so many seconds its job is taken away and runs elsewhere.",
    )
    labels: list[str] | None = Field(None, max_length=64, description="All of them; `add_labels` come on top.")
    add_labels: list[str] = Field([], max_length=64)
    remove_labels: list[str] = Field([], max_length=64, description="Whole labels, or keys with any value.")
    note: str | None = Field(None, max_length=1024, description="One line for administrators; empty takes it away.")


class RestartAll(Body):
    """Which backends to restart, one after the other."""

    labels: list[str] = Field([], max_length=64, description="Only those that have all of these.")


class BackendHealth(StrEnum):
    """What probing found; `unknown` until the pool has seen a new row."""

    JOINING = "joining"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    ASLEEP = "asleep"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


class WorkerInfo(Answer):
    """What a backend with the worker pack said in its last heartbeat."""

    pack: str
    comfyui: str
    torch: str
    gpu: str
    open: bool = Field(description="Whether its own pages answer while no job runs.")
    shared: bool = Field(description="Whether it works in the users' directories, on shared storage.")


class ManagedInfo(Answer):
    """What the process of a managed backend does."""

    state: Phase
    since_ms: int
    error: str | None
    deaths: int = Field(description="Crashes in a row.")
    retry_ms: int | None = Field(description="When a crashed one is tried again.")
    log: str | None = Field(None, description="The end of its log, when it has crashed and its log is on this machine.")


class RunningInfo(Answer):
    """The job that a backend executes."""

    id: int
    prompt_id: str
    user_id: int
    user: str | None = Field(description="None when the account is gone.")
    since_ms: int | None = Field(description="When the backend got it.")
    expected_end_ms: int | None = Field(description="None where nothing was learned yet.")


class BackendInfo(Answer):
    """A backend."""

    id: int
    name: str
    url: str
    source: str
    level: str = Field(description="stock, worker pack or engine.")
    mode: BackendMode
    health: BackendHealth
    error: str | None
    labels: list[str]
    note: str = Field(description="What an administrator says of it.")
    drain_by_ms: int | None = Field(description="When a draining one's job is taken away.")
    empty: bool = Field(description="Nothing of any job is there: if it drains or is disabled, it can be stopped.")
    held: str | None = Field(description="Why it gets no job for a moment.")
    quarantine: str | None = Field(description="Why it gets no jobs until a trial job succeeds or somebody trusts it.")
    quarantine_ms: int | None
    restart: Stage = Field(
        description="waiting: for its turn or its job's end; restarting; lost: it has not come back in time."
    )
    restartable: bool = Field(description="Whether it can be restarted from here.")
    removable: bool = Field(description="No: it comes from the server's settings.")
    managed: ManagedInfo | None
    job_id: int | None = Field(description="The job it carries.")
    running: RunningInfo | None
    collecting: int = Field(description="Jobs it has ended whose files are on their way home.")
    done: int = Field(description="Jobs ended on it since this server started.")
    failed: int = Field(description="Jobs in a row that it lost.")
    models: list[str] = Field(description="Models it has loaded, as far as known.")
    worker: WorkerInfo | None
    comfyui_version: str | None
    device: str | None
    vram_total: int | None
    vram_free: int | None
    seen_ms: int | None
    left_files: int = Field(description="Files that jobs left there since this server started; an estimate.")
    left_bytes: int = Field(description="What these take on its disk.")


class PoolFigures(Answer):
    """What dispatch cost and saved since this server started."""

    gaps: int = Field(description="How often a backend was given a job that waited.")
    gap_s: float | None = Field(description="How long it then stood idle before it began the job, on average.")
    loads_saved: int = Field(description="Models that were loaded already where a job that needs them was placed.")
    loading_saved_s: float = Field(description="What loading these would have taken.")


class BackendList(Answer):
    """Backends."""

    backends: list[BackendInfo]
    figures: PoolFigures | None = Field(None, description="In the list of all backends only.")
