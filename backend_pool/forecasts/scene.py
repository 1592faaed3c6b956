"""The pool and its line at one moment, as a forecast is made from it. Values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from backend_pool.books.share import Share
from backend_pool.placement.line import Line
from backend_pool.placement.values import Spot, Waiting


@dataclass(frozen=True)
class Seat:
    """A backend as the forecast sees it. `spot` is what it will be when it is free next, its running job included."""

    spot: Spot
    state: Literal["idle", "busy", "waking", "away"]
    free_s: float | None = None
    """When a busy one is expected to be free; None for unknown."""
    seq: int | None = None
    user_id: int | None = None
    """The running job and whose it is."""
    used_s: float = 0.0
    """What that job is expected to take in all."""
    lingers: bool = False
    """Whether its user has been told that the job has ended."""
    full: bool = False
    """Whether it wakes up when another one sleeps only: for a job that others can run that is no reason to hope."""


@dataclass(frozen=True)
class Case:
    """A waiting job of the line, and what is known of it beside."""

    job: Waiting
    work_s: Mapping[int, float] = field(default_factory=dict)
    """How long it runs by backend, loading aside; none where nothing is known."""
    note: str = ""
    """Why it cannot run, in words, when that is no matter of turns."""
    scarce: str = ""
    """What of its needs some backends lack, such as `checkpoint flux-dev.safetensors`."""


@dataclass(frozen=True)
class Scene:
    """Everything at one moment. `line` is a copy and is used up; what has no case there counts as a tail."""

    line: Line
    now_s: float
    """Seconds since the epoch."""
    seats: Sequence[Seat]
    cases: Mapping[int, Case]
    shares: Mapping[int, Share] = field(default_factory=dict)
    tails: Mapping[int, int] = field(default_factory=dict)
    """Waiting jobs by user that are no cases."""
