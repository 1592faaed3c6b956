"""What placement is told and what it answers, as values. Times are seconds; moments are seconds since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backend_pool.books.shares import Reserved
from backend_pool.lane import Lane

DEFAULT_LOAD_S = 10.0
"""What loading a model is taken to last until it was measured."""

NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True)
class Kind:
    """What decides where a job can run and what it has to load there. Few kinds are shared by many jobs."""

    places: frozenset[int]
    """Keys of all the backends that can run it, whether busy, asleep or idle."""
    models: frozenset[str] = frozenset()
    left: frozenset[int] = frozenset()
    """Others that could run it, and that are left to other users' jobs for the moment."""


NOWHERE = Kind(frozenset())


@dataclass(frozen=True)
class Waiting:
    """A queued job. Its place among its user's own: highest priority first, then ComfyUI's `number`, then `seq`."""

    seq: int
    user_id: int
    number: float
    kind: Kind
    lane: Lane = Lane.INTERACTIVE
    priority: int = 0
    since_s: float = 0.0
    """When it was submitted."""
    expected_s: float = 0.0
    """How long it runs anywhere, loading aside; 0 for unknown."""
    graph: str = ""
    """Signature of its workflow; empty for unknown."""
    avoid: frozenset[int] = frozenset()
    """Backends that it was lost with: the last choice among idle ones."""
    work_s: Mapping[int, float] = field(default_factory=dict)
    """How long it runs on each backend, of those where that is known."""


@dataclass(frozen=True)
class Spot:
    """A backend that could take a job at once."""

    key: int
    warm: frozenset[str] = frozenset()
    """Models that it holds."""
    user_id: int | None = None
    """Whose job ran there last, with which workflow: what the backend's cache holds."""
    graph: str = ""
    load_s: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    """Learned seconds of loading by model."""
    reserved: Reserved | None = None
    closed: frozenset[int] = frozenset()
    """Users none of whose jobs may go there for now: files of theirs are on their way home from it."""
    failed: int = 0
    """Jobs it lost lately."""
    done: int = 0

    def load(self, models: frozenset[str]) -> float:
        """Seconds of loading these."""
        return sum(self.load_s.get(model, DEFAULT_LOAD_S) for model in models)


@dataclass(frozen=True)
class Policy:
    """The settings of placement."""

    order: Literal["fair", "fifo", "turns"] = "fair"
    affinity_s: float = 15.0
    priority_step_s: float = 60.0
    batch_wait_s: float = 3600.0


@dataclass(frozen=True)
class Choice:
    """The next job, and where."""

    seq: int
    spot: int
    why: Literal["turn", "warm"] = "turn"
    """Its turn, or pulled forward because its models are loaded there."""
    saved_s: float = 0.0
    """Seconds of loading that an empty backend would have needed and this one does not."""
    passed: int | None = None
    """The job whose turn it was, when this one was pulled forward."""
