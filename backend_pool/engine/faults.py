"""Faults on order: what is armed, and where the engine asks whether one strikes. docs/engine.md lists them.

This module only keeps the orders; the place that asks does the harm.
"""

import itertools
import os
import threading
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from proxy.base.errors import BadInput

Kind = Literal[
    "oom",
    "cuda",
    "error",
    "crash",
    "hang_job",
    "hang_server",
    "mute",
    "refuse",
    "lose_answer",
    "drop_ws",
    "slow_view",
    "truncate_view",
    "slow_upload",
    "stray_file",
]
Point = Literal["now", "before_submit_answer", "after_submit", "mid_step", "before_executed", "before_history"]
AT_ONCE: tuple[Kind, ...] = ("crash", "hang_server", "drop_ws")
CRASH_STATUS = 70
ARMED_LIMIT = 1000
NUMBERS: dict[str, tuple[float, float]] = {
    "count": (1, 1_000_000),
    "step": (0, 1_000_000),
    "status": (400, 599),
    "seconds": (0, 86_400),
    "bytes_per_s": (1, 1e12),
}


@dataclass
class Fault:
    """One order. `node` is a node id or a class; `step` 0 means as the node starts, n its n-th progress report."""

    id: int
    fault: Kind
    count: int = 1
    node: str | None = None
    step: int = 0
    at: Point = "mid_step"
    status: int = 503
    seconds: float | None = None
    bytes_per_s: float = 1024.0
    message: str | None = None
    heeds_interrupt: bool = False


class Faults:
    """Armed faults, thread-safe; each is used up after `count` strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[Fault] = []
        self._ids = itertools.count(1)
        self.released = threading.Event()
        """Set by `clear`: lets hung jobs go."""
        self.struck = 0
        self.broken = False
        """A CUDA fault has struck: every node fails from now on, until `clear` or a new process."""

    def arm(self, order: object) -> Fault:
        """Arm one fault; one for `now` is only returned. Raises BadInput for an order that makes no sense."""
        given = _checked(order)
        fault = Fault(id=next(self._ids), **given)
        if fault.fault == "crash" and fault.at == "mid_step" and "step" not in given:
            fault.step = 1
        if fault.at == "now":
            self.struck += 1
            return fault
        with self._lock:
            if len(self._armed) >= ARMED_LIMIT:
                raise BadInput(f"There are {ARMED_LIMIT} faults armed already.")
            self._armed.append(fault)
            self.released.clear()
        return fault

    def clear(self) -> None:
        """Disarm everything and release hung jobs."""
        with self._lock:
            self._armed.clear()
            self.broken = False
            self.released.set()

    def armed(self) -> list[dict[str, Any]]:
        """What is still to come."""
        with self._lock:
            return [asdict(fault) for fault in self._armed]

    def take(self, *kinds: Kind) -> Fault | None:
        """The next strike of one of these kinds, used up by this call."""
        return self._take(lambda fault: fault.fault in kinds)

    def take_at_node(self, node_id: str, class_type: str, step: int) -> Fault | None:
        """The next strike inside a job: as a node starts (step 0) or at its n-th progress report."""
        inner = ("oom", "cuda", "error", "hang_job", "hang_server", "mute", "drop_ws", "stray_file")
        return self._take(
            lambda fault: (
                (fault.fault in inner or (fault.fault == "crash" and fault.at == "mid_step"))
                and fault.node in (None, node_id, class_type)
                and fault.step == step
            )
        )

    def crash_at(self, point: Point) -> None:
        """End the process at once if a crash is ordered here."""
        if self._take(lambda fault: fault.fault == "crash" and fault.at == point) is not None:
            crash()

    def _take(self, matches: Any) -> Fault | None:
        with self._lock:
            for fault in self._armed:
                if matches(fault):
                    fault.count -= 1
                    self.struck += 1
                    if fault.count <= 0:
                        self._armed.remove(fault)
                    return fault
        return None


def crash() -> None:
    """End the process with no clean-up at all, as the kernel's OOM killer would."""
    os._exit(CRASH_STATUS)


def _checked(order: object) -> dict[str, Any]:
    if not isinstance(order, dict):
        raise BadInput("A fault is a JSON object.", 'For example {"fault": "oom", "count": 1}.')
    known = set(Fault.__dataclass_fields__) - {"id"}
    if unknown := set(order) - known:
        raise BadInput(f"Unknown: {', '.join(sorted(map(str, unknown)))}.", f"Known: {', '.join(sorted(known))}.")
    if order.get("fault") not in get_args(Kind):
        raise BadInput("There is no such fault.", f"Known: {', '.join(get_args(Kind))}.")
    if order.get("at", "mid_step") not in get_args(Point):
        raise BadInput("There is no such point.", f"Known: {', '.join(get_args(Point))}.")
    if order.get("at") == "now" and order["fault"] not in AT_ONCE:
        raise BadInput("This fault cannot strike now.", f"These can: {', '.join(AT_ONCE)}.")
    for name, (low, high) in NUMBERS.items():
        value = order.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadInput(f"{name} must be a number.")
        if value is not None and not low <= value <= high:
            raise BadInput(f"{name} must be between {low:g} and {high:g}.")
    for name in ("node", "message"):
        if not isinstance(order.get(name), str | None):
            raise BadInput(f"{name} must be a string.")
    given = {name: value for name, value in order.items() if value is not None}
    return given | {name: int(given[name]) for name in ("count", "step", "status") if name in given}
