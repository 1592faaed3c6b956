"""What decides how long a workflow runs, read off its prompt: node classes, numbers except seeds, models. Pure.

Never texts: what people write stays out of whatever is learned. What is read is bounded, so that an odd prompt costs no
more than a large one; the rest of it then counts by its number of nodes. A prompt may give a node inputs that its class
does not have: a model counts where a list of the class has it, for no other is loaded.
"""

import hashlib
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend_pool.prompts.needs import MODEL_INPUTS, MODEL_SUFFIXES, Choice
from backend_pool.prompts.reach import is_link, reached
from backend_pool.prompts.spelling import spelled

NODES_READ = 2000
VALUES_READ = 64
"""Numbers and models of one node."""
MODELS_READ = 32
"""Models of one workflow that placement weighs."""
MAIN_FOLDERS = frozenset({"checkpoints", "diffusion_models"})
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
    whole: str = ""
    """Everything that runs but seeds, texts too: a run of it says nothing of any other. In memory only."""
    chosen: Container[Choice] | None = None
    """As given to `traits`."""


def traits(prompt: Mapping[str, Any], targets: Iterable[str], chosen: Container[Choice] | None = None) -> Traits:
    """Of the nodes that the targets need. Never raises, whatever the prompt holds.

    `chosen` are the choices that nodes have by their class; without it every value that looks like a model is one.
    """
    ids = sorted(reached(prompt, targets))
    nodes = {node_id: prompt[node_id] for node_id in ids[:NODES_READ]}
    parts = sorted(_part(node, chosen) for node in nodes.values())
    found = sorted({model for node in nodes.values() for model in models_of(node, chosen)})
    heavy = _heaviest(nodes, chosen)
    classes = sorted({_class(nodes[node_id]) for node_id in heavy})
    names = sorted(f"{node_id}={_class(node)}" for node_id, node in nodes.items())
    return Traits(
        signature=_digest([*parts, len(prompt) if len(nodes) >= NODES_READ else ""]),
        group=_digest([*classes, *_main(found), _magnitude(nodes)]),
        graph=_digest([*names, *found]),
        makeup=_digest([*sorted({_class(node) for node in nodes.values()}), *found]),
        models=frozenset(map(str, _loaded(found))),
        heaviest=frozenset(heavy),
        whole=_whole(prompt, ids),
        chosen=chosen,
    )


def models_of(node: Mapping[str, Any], chosen: Container[Choice] | None = None) -> list[Model]:
    """The model files that a node names, by the names of its inputs and the ends of its values; `chosen` as above."""
    found, kind = [], str(node.get("class_type"))
    for key, value in _inputs(node):
        if not isinstance(value, str) or len(value) > 1024:
            continue
        known = MODEL_INPUTS.get(key.rpartition(".")[2])
        if known is not None or value.lower().endswith(MODEL_SUFFIXES):
            name = spelled(value)
            if chosen is None or Choice(kind, key, name) in chosen:
                found.append(Model(known.folder if known else key, name))
    return found


def _whole(prompt: Mapping[str, Any], ids: Iterable[str]) -> str:
    """Empty where it cannot be told: then no run says anything of it."""
    found = hashlib.sha256()
    try:
        for node_id in ids:
            inputs = prompt[node_id].get("inputs")
            kept = {k: v for k, v in inputs.items() if not _seed(k, v)} if isinstance(inputs, Mapping) else inputs
            found.update(json.dumps([node_id, _class(prompt[node_id]), kept], sort_keys=True).encode())
    except (ValueError, TypeError, RecursionError):
        return ""
    return found.hexdigest()[:20]


def _seed(key: str, value: Any) -> bool:
    return isinstance(value, int | float) and key.rpartition(".")[2] in SEEDS


def _part(node: Mapping[str, Any], chosen: Container[Choice] | None) -> str:
    numbers = [
        f"{key}={_number(value)}"
        for key, value in _inputs(node)
        if isinstance(value, int | float) and not _seed(key, value)
    ]
    return repr((_class(node), numbers, list(map(str, models_of(node, chosen)))))


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


def _heaviest(nodes: Mapping[str, Mapping[str, Any]], chosen: Container[Choice] | None) -> list[str]:
    """Ids of the nodes that sample, or else of those that nothing is loaded by and that are not the ends."""
    steps = {node_id: _value(node, "steps") for node_id, node in nodes.items()}
    sampling = [node_id for node_id, value in steps.items() if value > 0]
    if sampling:
        return sampling
    samplers = [node_id for node_id, node in nodes.items() if "sampler" in _class(node).lower()]
    return samplers or [node_id for node_id, node in nodes.items() if not models_of(node, chosen)]


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
    return [str(model) for model in models if model.folder in MAIN_FOLDERS]


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:20]
