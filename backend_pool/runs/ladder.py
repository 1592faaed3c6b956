"""The failure ladder: what becomes of a job after a mishap at its backend, and of that backend. Pure.

The user sees one run: only FAIL is told to them. `docs/jobs.md` has the same table in words.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

KILLS = 3
"""A job that brought down so many different backends is not tried again, whatever attempts are left."""
KILLER = "JobKillsBackends"
FREE_LOSSES = 3
"""A job whose files were lost so often after its backend had ended it is tried no further for nothing."""


class Mishap(StrEnum):
    """What happened."""

    MEMORY = "memory"
    FAULT = "fault"
    HUNG = "hung"
    DEAF = "deaf"
    GONE = "gone"
    SWEPT = "swept"
    OUTDATED = "outdated"
    NEVER_BEGAN = "never began"
    UNFETCHED = "files lost"


HARMFUL = (Mishap.FAULT, Mishap.HUNG, Mishap.DEAF, Mishap.GONE)
"""What may have been the job's doing, once it had begun."""
LOSSES = (Mishap.GONE, Mishap.NEVER_BEGAN)
"""UNFETCHED where the backend had ended the job: its files were on their way, and another's job may run there."""


class Act(StrEnum):
    """What to do with the job."""

    HERE = "again here, its memory freed"
    ELSEWHERE = "back into the queue"
    FAIL = "fail"


@dataclass(frozen=True)
class Case:
    """A mishap and what decides about it."""

    mishap: Mishap
    why: str
    attempt: int
    attempts: int
    """How often it may be tried."""
    backend: int
    began: bool = True
    """Whether the backend had begun it: else it cannot have been the job's doing."""
    repeated: bool = False
    """Whether its user's same workflow lost a backend before."""
    unfetched: int = 0
    """How often its files were lost before."""
    avoid: frozenset[int] = frozenset()
    """Backends that it has left behind already."""
    freed: bool = False
    vram_mb: int = 0
    """Memory of this backend; 0 unknown."""
    roomier: bool = False
    """Whether another backend could run it and is larger, or of unknown size and not tried."""


@dataclass(frozen=True)
class Step:
    """The next rung."""

    act: Act
    error: tuple[str, str] | None = None
    """Type and text of what the user is told by FAIL; None: what the backend said, with `hint`."""
    hint: str = ""
    counts: bool = True
    charged: bool = False
    """Whether its user pays for the time that the attempt took: a backend's own failure is not theirs, what the
    workflow needs is."""
    avoid: bool = False
    vram_mb: int | None = None
    doubt: bool = False
    """It has to answer a probe before it gets another job."""
    quarantine: bool = False
    """It has to run a trial job before."""
    restart: bool = False
    """Nothing but a restart helps it."""


SMALLER = (
    "The server freed the memory and tried again, and there is no backend with more. A smaller picture or batch, "
    "fewer models at once or a smaller model needs less."
)
BROKEN = "The server tried the job on other backends too. If it happens again, tell the administrator."


def next_step(case: Case) -> Step:
    """Decide."""
    if case.mishap is Mishap.NEVER_BEGAN:
        return Step(Act.ELSEWHERE, counts=False, doubt=True)
    if case.mishap is Mishap.UNFETCHED:
        free = case.unfetched < FREE_LOSSES
        if free or case.attempt < case.attempts:
            return Step(Act.ELSEWHERE, counts=not free, doubt=True)
        return Step(Act.FAIL, _lost(case), doubt=True)
    if case.mishap is Mishap.MEMORY:
        return _memory(case)
    if case.mishap in (Mishap.SWEPT, Mishap.OUTDATED):
        outdated = case.mishap is Mishap.OUTDATED
        if case.attempt < case.attempts:
            return Step(Act.ELSEWHERE, doubt=outdated)
        return Step(Act.FAIL, None if outdated else _lost(case), doubt=outdated)
    return _harm(case)


def _memory(case: Case) -> Step:
    if not case.freed:
        return Step(Act.HERE, charged=True)
    # Back at one that it left behind: the others have been busy all the time, and would be tried for ever.
    again = case.backend in case.avoid and case.attempt >= case.attempts
    if not case.roomier or again or len(case.avoid | {case.backend}) >= KILLS:
        return Step(Act.FAIL, hint=SMALLER)
    if case.vram_mb:
        return Step(Act.ELSEWHERE, charged=True, vram_mb=case.vram_mb)
    return Step(Act.ELSEWHERE, charged=True, avoid=True)


def _harm(case: Case) -> Step:
    """The backend went down with it, or is not fit for another."""
    broken, deaf = case.mishap is Mishap.FAULT, case.mishap is Mishap.DEAF
    harmed = case.avoid | ({case.backend} if case.began else frozenset())
    kills = len(harmed) >= KILLS
    # Who waits for a job that stands still keeps a backend from others all the while.
    charged = deaf or case.mishap is Mishap.HUNG or (case.began and (case.repeated or kills))
    step = Step(Act.FAIL, charged=charged, doubt=True, quarantine=broken or deaf, restart=deaf)
    if kills:
        text = (
            f"The job was stopped for good: {len(harmed)} backends broke down while they ran it ({case.why}). "
            "Ask the administrator before you run it again."
        )
        return replace(step, error=(KILLER, text))
    if case.attempt < case.attempts:
        return replace(step, act=Act.ELSEWHERE, avoid=case.began)
    if broken:
        return replace(step, hint=BROKEN)
    return replace(step, error=_hung(case) if case.mishap in (Mishap.HUNG, Mishap.DEAF) else _lost(case))


def _lost(case: Case) -> tuple[str, str]:
    times = "once" if case.attempt == 1 else f"{case.attempt} times"
    each = "" if case.attempt == 1 else " each time"
    return "BackendLost", f"The job was tried {times} and lost its backend{each} ({case.why}). Run it again later."


def _hung(case: Case) -> tuple[str, str]:
    times = "once" if case.attempt == 1 else f"{case.attempt} times"
    return "JobHung", f"The job was tried {times} and stood still ({case.why}). Look at what its last node waits for."
