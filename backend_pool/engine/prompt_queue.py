"""The engine's queue and history: in memory, one job at a time, by number. Thread-safe; ComfyUI's shapes."""

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

HISTORY_LIMIT = 10_000


@dataclass(frozen=True)
class Item:
    """A queued prompt. `sensitive` holds the API tokens, which no listing shows."""

    number: float
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]
    sensitive: dict[str, Any] = field(default_factory=dict)

    def shown(self) -> list[Any]:
        """The five fields of /queue and /history."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


@dataclass(frozen=True)
class Outcome:
    """What a run left: `outputs` and `meta` by node, `messages` as (event, data)."""

    success: bool
    outputs: dict[str, Any]
    meta: dict[str, Any]
    messages: list[tuple[str, dict[str, Any]]]

    def entry(self, item: Item) -> dict[str, Any]:
        """The history entry."""
        status = "success" if self.success else "error"
        return {
            "prompt": item.shown(),
            "outputs": self.outputs,
            "status": {"status_str": status, "completed": self.success, "messages": [list(m) for m in self.messages]},
            "meta": self.meta,
        }


class PromptQueue:
    """Waits by `get`; `changed` is called after every change, for the `status` frame."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Item]] = []
        self._running: Item | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._flags: dict[str, bool] = {}
        self.interrupted = threading.Event()

    def put(self, item: Item) -> None:
        """Queue an item; a smaller number runs earlier, equal ones in the order they came."""
        with self._lock:
            heapq.heappush(self._heap, (item.number, next(self._order), item))
            self._lock.notify()
        self._changed()

    def get(self) -> Item | None:
        """Wait for the next item or a flag; None when only a flag came. An interrupt from before is forgotten."""
        with self._lock:
            self._lock.wait_for(lambda: self._heap or self._flags)
            if not self._heap:
                return None
            item = heapq.heappop(self._heap)[2]
            # The run writes `is_changed` into its nodes; listings and history show them as they were submitted.
            self._running = replace(item, prompt={node_id: dict(node) for node_id, node in item.prompt.items()})
            # Under the lock: an interrupt for this very job must not be lost between here and its first node.
            self.interrupted.clear()
        self._changed()
        return item

    def done(self, outcome: Outcome) -> None:
        """Move the running item to the history; the oldest entry leaves when there are too many."""
        with self._lock:
            assert self._running is not None
            item, self._running = self._running, None
            self._history[item.prompt_id] = outcome.entry(item)
            while len(self._history) > HISTORY_LIMIT:
                del self._history[next(iter(self._history))]
        self._changed()

    def remaining(self) -> int:
        """Running and pending items."""
        with self._lock:
            return len(self._heap) + (self._running is not None)

    def items(self) -> tuple[list[Item], list[Item]]:
        """(running, pending in the order they will run)."""
        with self._lock:
            running = [] if self._running is None else [self._running]
            return running, [entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2])]

    def clear(self) -> None:
        """Forget all pending items."""
        with self._lock:
            self._heap.clear()
        self._changed()

    def delete(self, prompt_id: object) -> bool:
        """Forget the first pending item of that id."""
        with self._lock:
            for index, (_, _, item) in enumerate(self._heap):
                if item.prompt_id == prompt_id:
                    del self._heap[index]
                    heapq.heapify(self._heap)
                    break
            else:
                return False
        self._changed()
        return True

    def interrupt(self, prompt_id: object = None) -> bool:
        """Stop the running item, or only if it has that id."""
        with self._lock:
            running = self._running is not None and (prompt_id is None or self._running.prompt_id == prompt_id)
            if running or prompt_id is None:
                self.interrupted.set()
            return running

    def history(self, prompt_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Entries by prompt id, oldest first. They are replaced as a whole, never changed."""
        with self._lock:
            if prompt_id is None:
                return dict(self._history)
            return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def clear_history(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._history.clear()

    def delete_history(self, prompt_id: object) -> None:
        """Forget one entry, if it is there."""
        with self._lock:
            if isinstance(prompt_id, str):
                self._history.pop(prompt_id, None)

    def set_flag(self, name: str) -> None:
        """Ask the worker for something between jobs."""
        with self._lock:
            self._flags[name] = True
            self._lock.notify()

    def take_flags(self) -> dict[str, bool]:
        """What was asked for since the last call."""
        with self._lock:
            flags, self._flags = self._flags, {}
            return flags
