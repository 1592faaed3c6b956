"""What decides how long a workflow runs, read off its prompt: node classes, numbers except seeds, models. Pure.

Never texts: what people write stays out of whatever is learned. What is read is bounded, so that an odd prompt costs no
more than a large one; the rest of it then counts by its number of nodes.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend_pool.prompts.needs import MODEL_INPUTS, MODEL_SUFFIXES
from backend_pool.prompts.reach import is_link, reached

NODES_READ = 2000
VALUES_READ = 64
"""Numbers and models of one node."""
MODELS_READ = 32
"""Models of one workflow that placement weighs."""
LOADERS = frozenset(known.folder for known in MODEL_INPUTS.values())
SEEDS = ("seed", "noise_seed", "control_after_generate", "rng_seed")
WORK_INPUTS = ("steps", "width", "height", "length", "batch_size", "num_frames", "frames", "megapixels")
"""Inputs that a sampler's time grows with, wherever in the workflow they are given."""


class Model(NamedTuple):
    """A model file that a node loads: `checkpoints` and `flux-dev.safetensors`."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}:{self.name}"


@dataclass(frozen=True)
class Traits:
    """What is learned by: the same work, work like it, and the same graph with other numbers."""

    signature: str = ""
    """Classes, wiring aside, numbers and models; empty when nothing is known of the workflow."""
    group: str = ""
    """Its heaviest node's class, the main models and the order of magnitude of the work."""
    graph: str = ""
    """Node ids, classes and models: prompts of one graph find each other's results in a backend's cache."""
    models: frozenset[str] = frozenset()
    heaviest: frozenset[str] = frozenset()
    """Ids of the nodes that take the time: a run that did not execute them tells nothing about the next."""
    makeup: str = ""
    """The classes and models there are, each once: what stays the same when ids, numbers and copies of nodes do not."""


def traits(
    prompt: Mapping[str, Any], targets: Iterable[str], real: Callable[[str], bool] = lambda _name: True
) -> Traits:
    """Of the nodes that the targets need. Never raises, whatever the prompt holds.

    `real` knows names of files that somebody has: a node may be given any number of others, which nobody loads.
    """
    nodes = _reached(prompt, targets)
    parts = sorted(_part(node) for node in nodes.values())
    found = sorted({model for node in nodes.values() for model in models_of(node)})
    heavy = _heaviest(nodes)
    classes = sorted({_class(nodes[node_id]) for node_id in heavy})
    names = sorted(f"{node_id}={_class(node)}" for node_id, node in nodes.items())
    return Traits(
        signature=_digest([*parts, len(prompt) if len(nodes) >= NODES_READ else ""]),
        group=_digest([*classes, *_main(found), _magnitude(nodes)]),
        graph=_digest([*names, *found]),
        makeup=_digest([*sorted({_class(node) for node in nodes.values()}), *found]),
        models=frozenset(map(str, _loaded(model for model in found if real(model.name)))),
        heaviest=frozenset(heavy),
    )


def models_of(node: Mapping[str, Any]) -> list[Model]:
    """The model files that a node names, by the names of its inputs and the ends of its values."""
    found = []
    for key, value in _inputs(node):
        if not isinstance(value, str) or len(value) > 1024:
            continue
        known = MODEL_INPUTS.get(key.rpartition(".")[2])
        if known is not None or value.lower().endswith(MODEL_SUFFIXES):
            found.append(Model(known.folder if known else key, value.replace("\\", "/")))
    return found


def _reached(prompt: Mapping[str, Any], targets: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    found = sorted(reached(prompt, targets))[:NODES_READ]
    return {node_id: prompt[node_id] for node_id in found}


def _part(node: Mapping[str, Any]) -> str:
    numbers = [
        f"{key}={_number(value)}"
        for key, value in _inputs(node)
        if isinstance(value, int | float) and key.rpartition(".")[2] not in SEEDS
    ]
    return repr((_class(node), numbers, list(map(str, models_of(node)))))


def _inputs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    given = node.get("inputs")
    known = [item for item in given.items() if not is_link(item[1])] if isinstance(given, Mapping) else []
    yield from sorted(known, key=lambda item: str(item[0]))[:VALUES_READ]


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type"))[:256]


def _number(value: float) -> str:
    """As ComfyUI reads it: 1 and 1.0 and true are one number. Huge integers have no float."""
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "huge"


def _heaviest(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Ids of the nodes that sample, or else of those that nothing is loaded by and that are not the ends."""
    steps = {node_id: _value(node, "steps") for node_id, node in nodes.items()}
    sampling = [node_id for node_id, value in steps.items() if value > 0]
    if sampling:
        return sampling
    samplers = [node_id for node_id, node in nodes.items() if "sampler" in _class(node).lower()]
    return samplers or [node_id for node_id, node in nodes.items() if not models_of(node)]


def _magnitude(nodes: Mapping[str, Mapping[str, Any]]) -> int:
    """The power of two nearest to the product of what makes it long."""
    work = 1.0
    for name in WORK_INPUTS:
        largest = max((_value(node, name) for node in nodes.values()), default=0.0)
        work *= max(1.0, min(largest, 1e6))
    return round(math.log2(work))


def _value(node: Mapping[str, Any], name: str) -> float:
    given = node.get("inputs")
    value = given.get(name) if isinstance(given, Mapping) else None
    try:
        number = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _loaded(models: Iterable[Model]) -> list[Model]:
    """Those that ComfyUI's own loaders load come first."""
    return sorted(models, key=lambda model: (model.folder not in LOADERS, model))[:MODELS_READ]


def _main(models: Iterable[Model]) -> list[str]:
    return [str(model) for model in models if model.folder in ("checkpoints", "diffusion_models")]


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:20]
