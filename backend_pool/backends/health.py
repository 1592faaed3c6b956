"""Observed health of a backend as a pure function: joining -> up <-> suspect -> down -> up, and joining -> down."""

from enum import StrEnum


class Health(StrEnum):
    """joining: has not answered yet; suspect: failed its last probe, gets no new work; down: its job goes elsewhere;
    asleep: a managed one that was stopped and starts when a job needs it; quarantined: it answers, but gets no job
    before a trial job has succeeded."""

    JOINING = "joining"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    ASLEEP = "asleep"
    QUARANTINED = "quarantined"


AWAY = frozenset({Health.JOINING, Health.DOWN, Health.QUARANTINED})
"""It may never run a job again: none waits for it that could run elsewhere."""
ANSWERING = frozenset({Health.UP, Health.SUSPECT, Health.QUARANTINED})
"""It can be told to end what it still has of a job."""


def judge(
    current: Health,
    *,
    answered: bool,
    silent_s: float,
    down_after_s: float,
    quarantined: bool = False,
    untried: bool = False,
) -> Health:
    """Health after a probe; `silent_s` is how long the backend has not answered, 0 when it just did; `untried` is one
    that was down and has yet to run its trial job."""
    if answered:
        if quarantined:
            return Health.QUARANTINED
        return Health.SUSPECT if untried else Health.UP
    if current is Health.DOWN or silent_s >= down_after_s:
        return Health.DOWN  # also one that never answered: a job may be waiting for it since before a restart
    if current is Health.JOINING:
        return Health.JOINING
    return Health.QUARANTINED if quarantined else Health.SUSPECT
