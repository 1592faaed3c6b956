"""What a waiting job may expect, as a value, and the words for why it waits. Pure."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

WAKING = "a GPU is waking up"
COMING = "files of your other job come home first"
DAY_MS = 86_400_000
UNREADY = "waiting for a backend that can run it"
_YOURS = re.compile(r"^(files of |a job of )?yours?\b|(?<= ahead, )(all )?yours\b")


@dataclass(frozen=True)
class Outlook:
    """Of one waiting job. None is said where nothing is known: nobody is told a time that was made up."""

    position: int | None = None
    """From 1, among all waiting jobs in the order in which they are expected to start; None when it cannot run."""
    start_ms: int | None = None
    end_ms: int | None = None
    reason: str = ""

    def as_of(self, now_ms: int) -> "Outlook":
        """As it is told at a later moment: what was to be by then and is not is to be now, and ends as much later."""
        late_ms = 0 if self.start_ms is None else max(0, now_ms - self.start_ms)
        start_ms = None if self.start_ms is None else self.start_ms + late_ms
        end_ms = None if self.end_ms is None else max(now_ms, self.end_ms + late_ms)
        return replace(self, start_ms=start_ms, end_ms=end_ms)


@dataclass(frozen=True)
class Standing:
    """What the words are made of."""

    now_ms: int = 0
    ahead: int = 0
    """Waiting jobs expected to start before it."""
    own_ahead: int = 0
    """Of these, its own user's."""
    own_running: int = 0
    own_coming: int = 0
    """Jobs of its user's whose files are on their way home from a worker: they count for the limit as well."""
    limit: int = 1
    """How many of its user's jobs may run at once."""
    lingers: bool = False
    """Whether one of these was stopped and its backend has not let go of it."""
    able: int = 1
    """Backends up that can run it; `open` of them are idle now and reserved for nobody else, `held` are reserved for
    another group now, `others` are up and cannot run it."""
    open: int = 0
    closed: int = 0
    """Idle ones from which such files come: they get nothing of that user's until then."""
    held: int = 0
    reserved_from_ms: int | None = None
    """An idle one is kept free for a reservation that begins then."""
    others: int = 0
    waking: bool = False
    reserved_until_ms: int | None = None
    """Every backend that could run it now is another group's until then."""
    scarce: str = ""
    """What the able ones have and no other has, such as `checkpoint flux-dev.safetensors`."""
    batch_yields: bool = False
    """It is batch work and interactive jobs go first."""


def words(at: Standing) -> str:
    """Why the job waits, for its user: short, no names of other users."""
    if at.reserved_until_ms is not None:
        return f"held back by a reservation until {_clock(at.reserved_until_ms, at.now_ms)}"
    if at.own_running + at.own_coming >= at.limit and not at.own_ahead:  # nothing that sleeps is woken for it yet
        if at.lingers:
            return "a job of yours that was stopped has not let go of its GPU yet"
        if at.own_running < at.limit:
            return COMING
        jobs = "job runs" if at.limit == 1 else "jobs run"
        return f"your other {jobs} first ({at.limit} at a time)"
    if at.able == 0:
        return WAKING if at.waking else UNREADY
    parts = []
    if at.ahead:
        yours = "" if at.own_ahead < at.ahead else ", yours" if at.ahead == 1 else ", all yours"
        parts.append(f"{_count(at.ahead, 'job')} ahead{yours}")
    if at.batch_yields:
        parts.append("batch work goes after interactive jobs")
    parts.append(_gpus(at))
    if at.waking:
        parts.append(WAKING)
    return ", ".join(filter(None, parts)) or "next"


def told_of(reason: str) -> str:
    """The same words for somebody else, who reads them beside the user's name."""
    return _YOURS.sub(lambda found: found[0].replace("your", "their"), reason)


def _gpus(at: Standing) -> str:
    if at.open:
        return "" if at.ahead else "next"
    if at.closed:
        return COMING
    if at.reserved_from_ms is not None:
        kept = f"an idle GPU is kept for a reservation from {_clock(at.reserved_from_ms, at.now_ms)}"
        return kept if at.own_running < at.limit else ""
    number, free = at.able - at.held, "unreserved " if at.held else ""
    if at.others and at.scarce:
        if number == 1:
            return f"waiting for the only {free}GPU with {at.scarce}"
        return f"{_all(number)} {free}GPUs with {at.scarce} busy"
    fit = " that can run it" if at.others else ""
    if number == 1:
        return f"the {'only ' if fit or free else ''}{free}GPU{fit} is busy"
    return f"{_all(number)} {free}GPUs{fit} busy"


def _clock(moment_ms: int, now_ms: int) -> str:
    """With its day where the time alone would be taken for an earlier one."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return f"{moment:%H:%M} UTC" if moment_ms - now_ms < DAY_MS else f"{moment:%Y-%m-%d %H:%M} UTC"


def _all(number: int) -> str:
    return "both" if number == 2 else f"all {number}"


def far_back(ahead: int) -> str:
    """Why a job far down its user's queue waits."""
    return f"{_count(ahead, 'job')} ahead"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number:,} {word}s"
