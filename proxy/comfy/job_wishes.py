"""What a submitter says about how a job is to be placed: lane, priority, labels, graphics memory. Pure.

It comes in `extra_data.cluster`, or in headers, which win. ComfyUI knows none of it, so it is taken out of extra_data
and goes neither to a backend nor into the history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend_pool.backends.labels import cleaned
from backend_pool.lane import Lane
from proxy.base.errors import BadInput

KEY: Final = "cluster"
LANE_HEADER: Final = "x-cluster-lane"
PRIORITY_HEADER: Final = "x-cluster-priority"
NOTE_HEADER: Final = "X-Cluster-Note"
LOWEST: Final = -1000
MOST_VRAM_MB: Final = 4_000_000
FIELDS: Final = ("lane", "priority", "labels", "vram_mb")


@dataclass(frozen=True)
class Wishes:
    """They, within what the user may ask for; `note` says what was changed."""

    lane: Lane
    priority: int = 0
    labels: tuple[str, ...] = ()
    vram_mb: int = 0
    note: str = ""


def take_wishes(
    extra_data: dict[str, Any], headers: Mapping[str, str], *, lane: Lane = Lane.INTERACTIVE, priority_limit: int = 0
) -> Wishes:
    """Take them out of extra_data; `lane` is the user's own choice. Raises BadInput for what is none."""
    given = _given(extra_data)
    priority = _priority(headers.get(PRIORITY_HEADER, given.get("priority")))
    note = ""
    if priority > priority_limit:
        note = f"Priority {priority} was lowered to {priority_limit}, the highest you may ask for."
    return Wishes(
        lane=_lane(headers.get(LANE_HEADER, given.get("lane")), lane),
        priority=min(priority, priority_limit),
        labels=_labels(given.get("labels")),
        vram_mb=_vram(given.get("vram_mb")),
        note=note,
    )


def _given(extra_data: dict[str, Any]) -> Mapping[str, Any]:
    given = extra_data.pop(KEY, None)
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadInput(f"extra_data.{KEY} must be an object with {', '.join(FIELDS)}.")
    if unknown := [str(key) for key in given if key not in FIELDS]:
        raise BadInput(f"extra_data.{KEY} knows {', '.join(FIELDS)}, but not {', '.join(unknown)[:100]}.")
    return given


def _lane(given: object, default: Lane) -> Lane:
    if given is None:
        return default
    word = given.strip().lower() if isinstance(given, str) else ""
    for lane in Lane:
        if word == lane.value:
            return lane
    raise BadInput(f"lane must be {' or '.join(Lane)}.")


def _priority(given: object) -> int:
    if given is None:
        return 0
    number: int | None = None
    if isinstance(given, int) and not isinstance(given, bool):
        number = given
    elif isinstance(given, str) and len(given) < 20 and given.isascii() and given.strip().removeprefix("-").isdecimal():
        number = int(given)
    if number is None or not LOWEST <= number <= -LOWEST:
        raise BadInput(f"priority must be a whole number from {LOWEST} to {-LOWEST}; higher runs earlier, 0 is usual.")
    return number


def _labels(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(label, str) for label in given):
        raise BadInput("labels must be a list of texts.")
    return tuple(cleaned(given))


def _vram(given: object) -> int:
    if given is None:
        return 0
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= MOST_VRAM_MB:
        raise BadInput(f"vram_mb must be a whole number of MiB from 0 to {MOST_VRAM_MB}.")
    return given
