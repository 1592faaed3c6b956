"""Where the time of one attempt went, by what its backend said: loading models, or running. No I/O, no clock.

ComfyUI says which node it executes and how a sampler steps, never that it loads a model. Loading is what a loader node
takes, what a first text encoding takes beyond a later one, and what a sampler takes to its first step beyond a usual
step. What was not heard counts as running.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from backend_pool.forecasts.signature import MAIN_FOLDERS, Model, models_of
from backend_pool.prompts.needs import Choice
from backend_pool.prompts.reach import links

STEPS_KEPT = 64
NOISE_S = 0.02
"""A first step this little longer than a usual one has loaded nothing."""
FAR = 500
"""Nodes looked at on the way back from a node to its loaders."""
ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass
class _Turn:
    """One execution of a node."""

    began_s: float
    ended_s: float | None = None
    steps_s: list[float] = field(default_factory=list)
    """When its first progress bar advanced."""
    last: float = 0.0
    over: bool = False
    """A second bar has begun: what follows are no steps of the first."""

    def step(self, value: float, now_s: float) -> None:
        if value < self.last:
            self.over = True
        elif value > self.last and not self.over and len(self.steps_s) < STEPS_KEPT:
            self.last = value
            self.steps_s.append(now_s)

    @property
    def took_s(self) -> float:
        return 0.0 if self.ended_s is None else self.ended_s - self.began_s

    @property
    def first_step_excess_s(self) -> float | None:
        """None when it took too few steps to tell."""
        if len(self.steps_s) < 2:
            return None
        usual_s = median(b - a for a, b in zip(self.steps_s, self.steps_s[1:], strict=False))
        excess_s = self.steps_s[0] - self.began_s - usual_s
        return excess_s if excess_s > max(NOISE_S, usual_s / 4) else 0.0


class Meter:
    """Hears every message of one attempt at its backend with the monotonic time it came at. `chosen` as in `traits`."""

    def __init__(self, prompt: Mapping[str, Any], chosen: Container[Choice] | None = None) -> None:
        self._prompt = prompt
        self._chosen = chosen
        self._turns: dict[str, _Turn] = {}
        self._current: str | None = None
        self._began_s: float | None = None
        self._ended_s: float | None = None
        self.ended_well = False
        """It ran to its end and was heard from beginning to end: fit to be learned from."""
        self._gap = False

    @property
    def executed(self) -> frozenset[str]:
        """Ids of the nodes that ran; the others came out of the backend's cache."""
        return frozenset(self._turns)

    @property
    def run_ms(self) -> int:
        """From the backend's beginning to its end, loading included; 0 until both were heard."""
        if self._began_s is None or self._ended_s is None:
            return 0
        return max(0, round(1000 * (self._ended_s - self._began_s)))

    @property
    def load_ms(self) -> int:
        """What of `run_ms` went into loading models; an estimate."""
        return min(self.run_ms, round(1000 * sum(self.loads_s.values())))

    @property
    def loads_s(self) -> dict[str, float]:
        """Seconds by model (`checkpoints:flux-dev.safetensors`), of those that took any."""
        found: dict[str, float] = defaultdict(float)
        encodings: dict[tuple[Model, ...], list[_Turn]] = defaultdict(list)
        for node_id, turn in self._turns.items():
            node = self._prompt.get(node_id)
            if not isinstance(node, Mapping):  # made by another node while it ran
                continue
            own = models_of(node, self._chosen)
            excess_s = turn.first_step_excess_s
            if own and not turn.steps_s:
                _spread(found, own, turn.took_s)
            elif excess_s:
                _spread(found, own or self._upstream(node), excess_s)
            elif "TextEncode" in str(node.get("class_type")) and not turn.steps_s:
                encodings[tuple(self._upstream(node, main=False))].append(turn)
        for models, turns in encodings.items():
            usual_s = min(turn.took_s for turn in turns) if len(turns) > 1 else 0.0
            _spread(found, models, max(turn.took_s for turn in turns) - usual_s)
        return {model: seconds for model, seconds in found.items() if seconds > NOISE_S}

    def hear(self, kind: str, data: Mapping[str, Any], now_s: float) -> None:
        """Take one message of this prompt; what it does not know is passed over."""
        if kind == "execution_start" and self._began_s is None:
            self._began_s = now_s
        elif kind == "executing":
            self._executing(data, now_s)
        elif kind == "progress" and isinstance(data.get("value"), int | float):
            turn = self._turns.get(str(data.get("node")))
            if turn is not None and turn.ended_s is None:
                turn.step(float(data["value"]), now_s)
        elif kind in ENDS:
            self.end(now_s, well=kind == "execution_success")

    def missed(self) -> None:
        """The event socket was gone for a while: nothing is learned from what the rest looks like."""
        self._gap = True

    def end(self, now_s: float, *, well: bool = False) -> None:
        """It has ended at the backend, whoever says so; the first word counts."""
        if self._ended_s is not None:
            return
        self._close(now_s)
        self._ended_s = now_s
        self.ended_well = well and self._began_s is not None and not self._gap

    def _executing(self, data: Mapping[str, Any], now_s: float) -> None:
        node = data.get("node")
        if node is None:
            self.end(now_s)
            return
        self._close(now_s)
        self._current = str(node)
        self._turns[self._current] = _Turn(now_s)  # a node that runs again, as in a loop, counts by its last time

    def _close(self, now_s: float) -> None:
        turn = self._turns.get(self._current) if self._current is not None else None
        if turn is not None and turn.ended_s is None:
            turn.ended_s = now_s

    def _upstream(self, node: Mapping[str, Any], *, main: bool = True) -> list[Model]:
        """Models that a node hangs on: the large ones, or with `main` false those nearest to it."""
        left, seen = list(links(node)), set[str]()
        found: list[Model] = []
        while left and len(seen) < FAR:
            node_id = left.pop(0)
            source = self._prompt.get(node_id)
            if node_id in seen or not isinstance(source, Mapping):
                continue
            seen.add(node_id)
            found += models_of(source, self._chosen)
            if not main and found:
                break
            left += links(source)
        large = [model for model in found if model.folder in MAIN_FOLDERS]
        return sorted(set(large if main and large else found))


def _spread(found: dict[str, float], models: Iterable[Model], seconds: float) -> None:
    names = sorted(map(str, models))
    for name in names:
        found[name] += seconds / len(names)
