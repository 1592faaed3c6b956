"""Settings of the pool: backends, the queue, jobs and their history. Part of `settings.Settings`."""

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from proxy.base.backend_url import clean_url, full
from proxy.base.errors import BadInput


class PoolSettings(BaseSettings):
    """Units are in the names: `_s` seconds, `_mb` mebibytes."""

    backends: list[str] = Field([], description="URLs of ComfyUI instances, added to the registered ones.")
    engines: int | None = Field(
        None, ge=0, description="Embedded engines to start. Default: one when no backend is known, else none."
    )
    engine_args: list[str] = Field([], description="Further arguments for embedded engines, such as `--step-ms 50`.")
    probe_interval_s: float = Field(5.0, gt=0, description="Seconds between health probes of a backend, with jitter.")
    probe_timeout_s: float = Field(5.0, gt=0, description="How long a probe may take.")
    models_interval_s: float = Field(
        10.0,
        gt=0,
        description="How often the model lists of a backend are looked at; a file that was added or taken away shows "
        "after this long.",
    )
    heartbeat_interval_s: float = Field(
        3.0,
        ge=0.2,
        le=60,
        description="How often backends with the worker pack say that they live; four missing heartbeats count as a "
        "failed probe.",
    )
    backend_down_after_s: float = Field(
        20.0, gt=0, description="A backend that fails its probes for this long is down and loses its job to another."
    )
    job_attempts: int = Field(3, ge=1, description="How often a job is tried on backends that vanish before it fails.")
    lease_s: float = Field(
        15.0,
        ge=1,
        description="A server that has not renewed its lease of the database for this long has lost its jobs to the "
        "next one that starts on it.",
    )
    job_poll_s: float = Field(2.0, gt=0, description="How often the queue is looked at when nothing rings.")
    cancel_grace_s: float = Field(
        10.0, gt=0, description="A cancelled job that its backend has not ended after this long ends without it."
    )
    job_silence_s: float = Field(
        1200.0,
        gt=0,
        description="A running job of which its backend says nothing for this long is stopped there, and tried "
        "elsewhere.",
    )
    unheeded_limit_s: float = Field(
        120.0,
        gt=0,
        description="A backend that goes on with a job for this long after it was told to end it is quarantined, and "
        "restarted where the server can do that.",
    )
    deep_probe_s: float = Field(
        900.0,
        ge=0,
        description="A backend that is idle for this long runs a tiny trial job, and again after as long. 0: never.",
    )
    trial_timeout_s: float = Field(60.0, gt=0, description="How long a trial job may take.")
    idle_free_s: float = Field(
        600.0, ge=0, description="A backend without a job for this long unloads its models, once. 0: never."
    )
    restart_timeout_s: float = Field(
        300.0,
        gt=0,
        description="How long a backend may take to answer again after a restart; a rolling restart stops at one that "
        "takes longer.",
    )
    sweep_backends: bool = Field(
        True,
        description="Whether output files that have come home are emptied at stock backends, and inputs above "
        "`backend_inputs_mb`. No: all of it stays there.",
    )
    backend_inputs_mb: int = Field(
        4096, ge=0, description="What input files may hold at one stock backend; the longest unused are emptied first."
    )
    placement: Literal["fair", "fifo", "turns"] = Field(
        "fair",
        description="Who is next: fair by GPU time, the oldest job first, or users in turn (docs/scheduling.md).",
    )
    running_limit: int = Field(1, ge=1, description="Jobs of one user that may run at the same time.")
    priority_limit: int = Field(0, ge=0, description="Highest priority that jobs of users without a group may ask for.")
    run_limit_s: float | None = Field(
        None, gt=0, description="How long one job may run on a backend. Default: as long as it takes."
    )
    affinity_s: float = Field(
        15.0,
        ge=0,
        description="By how many seconds of unfairness a job may go first where its models are loaded already.",
    )
    priority_step_s: float = Field(
        60.0, ge=0, description="GPU-seconds by which each step of a job's priority puts it ahead of other users' jobs."
    )
    batch_wait_s: float = Field(
        3600.0, ge=0, description="A batch job that has waited for this long counts as an interactive one."
    )
    queue_limit: int = Field(1000, ge=1, description="Waiting jobs one user may have.")
    history_limit: int = Field(10_000, ge=1, description="Finished jobs kept per user, as in ComfyUI.")
    history_days: int = Field(
        0, ge=0, description="Finished jobs go from the history after this many days; 0 keeps them. Files stay."
    )
    ledger_days: int = Field(400, ge=32, description="Days that the ledger of used GPU time is kept.")
    quota_contact: str = Field(
        "your administrator", description="Who is to be asked for more GPU time, as users read it."
    )
    denied_nodes: list[str] = Field(
        [
            "LoadImageDataSetFromFolder",
            "LoadImageTextDataSetFromFolder",
            "LoadTrainingDataset",
            "SaveImageDataSetToFolder",
            "SaveImageTextDataSetToFolder",
            "SaveTrainingDataset",
        ],
        description="Node classes nobody may use. The default ones read or write whole folders of a backend by name.",
    )
    hidden_models: list[str] = Field(
        [],
        description="Model files nobody sees or may use, as patterns such as `secret-*` or `loras/clients/*`, compared "
        "with the file's name, its path in its folder, and `folder/path`.",
    )
    history_mb: int = Field(
        256,
        ge=1,
        description="Size of the finished jobs' workflows and results kept per user, the oldest go first; and of the "
        "waiting ones.",
    )
    upstream_timeout_s: float = Field(30.0, gt=0, description="How long a backend or session may take to answer.")
    transfer_timeout_s: float = Field(
        120.0, gt=0, description="How long a file transfer or a forwarded request may stand still."
    )

    @field_validator("backends")
    @classmethod
    def _backends_are_addresses(cls, urls: list[str]) -> list[str]:
        try:
            return [clean_url(full(url)) for url in urls]
        except BadInput as error:
            raise ValueError(error.message) from error
