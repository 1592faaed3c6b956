"""A pool with a virtual clock: jobs, models that take time to load, and the real line deciding. Pure and repeatable.

What it leaves out is what the line does not decide: networks, files, backends that fail.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from backend_pool.share import Share

ARRIVAL, END = 1, 0


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


@dataclass(frozen=True)
class Load:
    """Who asks for what of which pool. Each spot keeps the `holds` models that it used last."""

    tasks: Sequence[Task]
    spots: int
    shares: Mapping[int, Share] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)
    holds: int = 1


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
        heapify(self._events)
        self._tasks = {task.seq: task for task in load.tasks}
        self._runs: dict[int, Run] = {}

    def run(self) -> list[Run]:
        """All runs in the order of their beginnings."""
        while self._events:
            now_s = self._events[0][0]
            while self._events and self._events[0][0] == now_s:
                _, what, seq = heappop(self._events)
                if what == ARRIVAL:
                    self.line.add(self._waiting(self._tasks[seq]))
                else:
                    self._ended(self._runs[seq])
            self._place(now_s)
        return sorted(self._runs.values(), key=lambda run: (run.begin_s, run.task.seq))

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
        return Spot(key, held, self._last.get(key), load_s=self._load.load_s, done=self._done[key])

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


@dataclass(frozen=True)
class Outcome:
    """What came of a run. Shares are of the time in which every user had jobs waiting."""

    makespan_s: float
    busy: float
    """Part of the backends' time that went into jobs, loading included."""
    loading: float
    """Part that went into loading."""
    loads: int
    jain: float
    """1 when everybody had the same of the pool by their weight."""
    error: float
    """Largest distance of a user's part from the one by weight, as a part of it."""
    waits_p50_s: float
    waits_p95_s: float
    worst_user_p95_s: float
    placements: int


def outcome(load: Load, runs: Sequence[Run]) -> Outcome:
    """Sum a simulation up."""
    begin_s = min(run.task.arrives_s for run in runs)
    until_s = contended_until(runs)
    span_s = max(until_s - begin_s, 1e-9)
    busy_s = sum(_overlap(run.begin_s, run.end_s, until_s) for run in runs)
    loading_s = sum(_overlap(run.begin_s, run.begin_s + run.load_s, until_s) for run in runs)
    parts = parts_by_weight(load, runs, until_s)
    waits = sorted(run.wait_s for run in runs)
    by_user: dict[int, list[float]] = {}
    for run in runs:
        by_user.setdefault(run.task.user_id, []).append(run.wait_s)
    mean = sum(parts.values()) / len(parts)
    return Outcome(
        makespan_s=max(run.end_s for run in runs) - begin_s,
        busy=busy_s / (span_s * load.spots),
        loading=loading_s / (span_s * load.spots),
        loads=sum(1 for run in runs if run.load_s),
        jain=jain(parts.values()),
        error=max(abs(part / mean - 1) for part in parts.values()) if mean else 0.0,
        waits_p50_s=quantile(waits, 0.5),
        waits_p95_s=quantile(waits, 0.95),
        worst_user_p95_s=max(quantile(sorted(one), 0.95) for one in by_user.values()),
        placements=len(runs),
    )


def contended_until(runs: Iterable[Run]) -> float:
    """When the first of the users had nothing waiting any more."""
    last: dict[int, float] = {}
    for run in runs:
        last[run.task.user_id] = max(last.get(run.task.user_id, 0.0), run.begin_s)
    return min(last.values())


def parts_by_weight(load: Load, runs: Iterable[Run], until_s: float) -> dict[int, float]:
    """Backend seconds of each user up to a moment, by the weight."""
    parts: dict[int, float] = {}
    for run in runs:
        share = load.shares.get(run.task.user_id, Share())
        had_s = _overlap(run.begin_s, run.end_s, until_s) / share.weight
        parts[run.task.user_id] = parts.get(run.task.user_id, 0.0) + had_s
    return parts


def jain(parts: Iterable[float]) -> float:
    """Jain's index of fairness: 1 for equal parts, 1/n when one has it all."""
    values = list(parts)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def quantile(ordered: Sequence[float], part: float) -> float:
    """Of sorted values."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _overlap(begin_s: float, end_s: float, until_s: float) -> float:
    return max(0.0, min(end_s, until_s) - begin_s)
