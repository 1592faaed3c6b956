"""Whose turn it is to restart, and what became of those before, as pure functions over rows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backend_pool.backends.health import Health
from backend_pool.model import Backend


class Stage(StrEnum):
    """none: nobody wants it restarted; waiting: for its turn or its job's end; restarting: told, not yet back;
    lost: it has not come back in time."""

    NONE = "none"
    WAITING = "waiting"
    RESTARTING = "restarting"
    LOST = "lost"


@dataclass(frozen=True)
class Place:
    """One backend whose restart is wanted. Those of one batch go one after the other."""

    key: int
    batch: int
    stage: Stage
    health: Health


def stage(row: Backend, now_ms: int, timeout_s: float) -> Stage:
    """How far the restart of a backend is."""
    if not row.restart_ms:
        return Stage.NONE
    if row.restart_ms > row.restarted_ms:
        return Stage.WAITING
    return Stage.LOST if now_ms - row.restarted_ms > timeout_s * 1000 else Stage.RESTARTING


def due(places: Iterable[Place]) -> set[int]:
    """Whose turn it is: in each batch the first that waits, while no other of the batch is away or ailing.

    So never more than one of a batch is missing. One alone waits for nobody.
    """
    batches: dict[int, list[Place]] = defaultdict(list)
    for place in places:
        batches[place.batch].append(place)
    firsts = (_first(sorted(batch, key=lambda place: place.key)) for batch in batches.values())
    return {first.key for first in firsts if first is not None}


def stopped(places: Iterable[Place]) -> set[int]:
    """Batches that end here: one of them did not come back."""
    return {place.batch for place in places if place.stage is Stage.LOST}


def _first(batch: Sequence[Place]) -> Place | None:
    if any(place.stage is not Stage.WAITING for place in batch):
        return None
    first = next((place for place in batch if place.health is not Health.ASLEEP), None)
    others = [place for place in batch if place is not first]
    return None if any(place.health in AILING for place in others) else first


AILING = (Health.SUSPECT, Health.JOINING)
"""Soon up again or down: until then nobody else of the batch may go. Down ones cannot be waited for."""
