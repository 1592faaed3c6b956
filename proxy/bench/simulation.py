"""A pool with a virtual clock: jobs, models that take time to load, and the real line deciding. Pure and repeatable.

What it leaves out is what the line does not decide: networks, files, backends that fail.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting

END, ARRIVAL, BOUNDARY = 0, 1, 2


@dataclass(frozen=True)
class Task:
    """A job as it will turn out. `expected_s` is what the line is told; 0 for nothing."""

    seq: int
    user_id: int
    arrives_s: float
    run_s: float
    models: frozenset[str] = frozenset()
    expected_s: float = 0.0
    lane: Lane = Lane.INTERACTIVE
    priority: int = 0
    places: frozenset[int] | None = None
    """None for every spot."""

    def numbered(self, seq: int) -> "Task":
        """The same under another number."""
        return replace(self, seq=seq)


@dataclass(frozen=True)
class Load:
    """Who asks for what of which pool. Each spot keeps the `holds` models that it used last."""

    tasks: Sequence[Task]
    spots: int
    shares: Mapping[int, Share] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)
    holds: int = 1
    reserved: Mapping[int, Reserved] = field(default_factory=dict)
    """By spot."""


@dataclass(frozen=True)
class Run:
    """One task as it went."""

    task: Task
    spot: int
    begin_s: float
    load_s: float
    end_s: float
    passed: int | None = None
    """Whom it was pulled ahead of."""

    @property
    def wait_s(self) -> float:
        """From the submission to the start."""
        return self.begin_s - self.task.arrives_s


class Simulation:
    """Runs a load to its end."""

    def __init__(self, load: Load, policy: Policy) -> None:
        self._load = load
        self.line = Line(policy)
        for user_id, share in load.shares.items():
            self.line.know(user_id, share)
        self._all = frozenset(range(load.spots))
        self._kinds: dict[tuple[frozenset[int], frozenset[str]], Kind] = {}
        self._held: list[OrderedDict[str, None]] = [OrderedDict() for _ in self._all]
        self._last: dict[int, int] = {}
        self._done = [0] * load.spots
        self._idle = set(self._all)
        self._events: list[tuple[float, int, int]] = [(task.arrives_s, ARRIVAL, task.seq) for task in load.tasks]
        for held in load.reserved.values():  # somebody may start, or must not any more
            self._events += [(moment_ms / 1000, BOUNDARY, 0) for moment_ms in (held.begin_ms, held.end_ms)]
        heapify(self._events)
        self._tasks = {task.seq: task for task in load.tasks}
        self._runs: dict[int, Run] = {}

    def run(self) -> list[Run]:
        """All runs in the order in which they were placed."""
        while self._events:
            now_s = self._events[0][0]
            while self._events and self._events[0][0] == now_s:
                _, what, seq = heappop(self._events)
                if what == ARRIVAL:
                    self.line.add(self._waiting(self._tasks[seq]))
                elif what == END:
                    self._ended(self._runs[seq])
            self._place(now_s)
        return list(self._runs.values())

    def _waiting(self, task: Task) -> Waiting:
        places = self._all if task.places is None else task.places
        kind = self._kinds.setdefault((places, task.models), Kind(places, task.models))
        return Waiting(
            task.seq,
            task.user_id,
            task.seq,
            kind,
            task.lane,
            task.priority,
            since_s=task.arrives_s,
            expected_s=task.expected_s,
        )

    def _place(self, now_s: float) -> None:
        while self._idle:
            choice = self.line.next([self._spot(key) for key in sorted(self._idle)], now_s)
            if choice is None:
                return
            self.line.started(choice.seq, choice.spot, now_s)
            self._idle.remove(choice.spot)
            task = self._tasks[choice.seq]
            load_s = self._take_in(choice.spot, task.models)
            run = Run(task, choice.spot, now_s, load_s, now_s + load_s + task.run_s, choice.passed)
            self._runs[task.seq] = run
            heappush(self._events, (run.end_s, END, task.seq))

    def _spot(self, key: int) -> Spot:
        held = frozenset(self._held[key])
        reserved = self._load.reserved.get(key)
        done = self._done[key]
        return Spot(key, held, self._last.get(key), load_s=self._load.load_s, reserved=reserved, done=done)

    def _take_in(self, key: int, models: Iterable[str]) -> float:
        """Load what is missing; the seconds that it takes."""
        held, load_s = self._held[key], 0.0
        for model in sorted(models):
            if model not in held:
                load_s += self._load.load_s.get(model, 0.0)
            held[model] = None
            held.move_to_end(model)
        while len(held) > max(self._load.holds, len(frozenset(models))):
            held.popitem(last=False)
        return load_s

    def _ended(self, run: Run) -> None:
        self.line.ended(run.task.seq, run.end_s - run.begin_s)
        self._idle.add(run.spot)
        self._last[run.spot] = run.task.user_id
        self._done[run.spot] += 1
