"""Several backends' object_info as one document to show, and where their definitions of one class part. Pure.

Shown is the definition that most backends share, of the oldest where numbers are equal; each of its lists offers every
choice that some backend offers under that name. A path is one choice however a backend's system writes it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend_pool.prompts.dynamic_inputs import COMBO, DYNAMIC_TYPES, option_list, replaced
from backend_pool.prompts.node_info import (
    UPLOADS,
    ObjectInfo,
    config,
    grouped_specs,
    kind_of,
    options,
    upload_kind,
    with_options,
)
from backend_pool.prompts.spelling import spelled

JUDGED = ("min", "max", "multiselect", "remote", "image_folder", *UPLOADS)
"""Settings of an input that decide which values are accepted; all others are looks and defaults."""


@dataclass(frozen=True)
class NodeUnion:
    """`varied` has the classes that not all define alike: positions of the documents that part from `nodes`."""

    nodes: Mapping[str, Any]
    varied: Mapping[str, frozenset[int]] = field(default_factory=dict)


def merge(infos: Sequence[ObjectInfo]) -> NodeUnion:
    """The union: every class, and in each list every choice, in the order of first sight."""
    nodes: dict[str, Any] = {}
    varied: dict[str, frozenset[int]] = {}
    for name in dict.fromkeys(name for info in infos for name in info):
        found = {position: info[name] for position, info in enumerate(infos) if name in info}
        first, *others = found.values()
        if all(other == first for other in others):
            nodes[name] = first
            continue
        shapes = {position: shape(node) for position, node in found.items()}
        chosen = Counter(shapes.values()).most_common(1)[0][0]  # the first seen of equally common ones
        alike = [node for position, node in found.items() if shapes[position] == chosen]
        apart = frozenset(position for position, found_shape in shapes.items() if found_shape != chosen)
        nodes[name] = _merged(alike[0], [*alike[1:], *(found[position] for position in sorted(apart))])
        if apart:
            varied[name] = apart
    return NodeUnion(nodes, varied)


def shape(node: Mapping[str, Any]) -> str:
    """What decides whether a prompt fits the class, apart from the choices in lists, as text to compare."""
    return json.dumps([_shapes(node.get("input")), node.get("output"), node.get("output_node") is True], sort_keys=True)


def _shapes(inputs: Any) -> dict[str, list[Any]]:
    return {name: [group, *_spec_shape(spec)] for group, name, spec in grouped_specs(inputs)}


def _spec_shape(spec: Any) -> list[Any]:
    kind, settings = kind_of(spec), config(spec)
    judged = {key: settings[key] for key in JUDGED if settings.get(key)}
    if kind == COMBO:
        return [kind, {str(option.get("key")): _shapes(option.get("inputs")) for option in option_list(spec)}]
    if kind in DYNAMIC_TYPES:
        return [kind, {key: settings.get(key) for key in ("template", "inputs", "slotType")}]
    return ["COMBO" if options(spec) is not None else kind, judged]


def _merged(known: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """`known` with the choices of the others."""
    for other in others:
        inputs = _merged_inputs(known.get("input"), other.get("input"))
        if inputs is not known.get("input"):
            known = {**known, "input": inputs}
    return known


def _merged_inputs(known: Any, other: Any) -> Any:
    theirs = {name: spec for _, name, spec in grouped_specs(other)}
    changed = {}
    for group, name, spec in grouped_specs(known):
        new = _merged_spec(spec, theirs[name]) if name in theirs else spec
        if new is not spec:
            changed[group, name] = new
    return replaced(known, changed) if changed else known


def _merged_spec(spec: Any, other: Any) -> Any:
    if kind_of(spec) == COMBO:
        return spec if spec == other else _merged_combo(spec, other)
    ours, more = options(spec), options(other)
    if ours is None or not more or ours == more or upload_kind(spec) is not None:
        return spec
    seen = {repr(spelled(choice)) for choice in ours}  # repr: 1 and True are two choices, and a list is no key
    extra = [choice for choice in more if repr(spelled(choice)) not in seen]
    return with_options(spec, [*ours, *extra]) if extra else spec


def _merged_combo(spec: Any, other: Any) -> Any:
    if kind_of(other) != COMBO:
        return spec
    theirs = {str(option.get("key")): option for option in option_list(other)}
    merged: list[Mapping[str, Any]] = []
    for option in option_list(spec):
        also = theirs.pop(str(option.get("key")), {})
        inputs = _merged_inputs(option.get("inputs"), also.get("inputs"))
        merged.append(option if inputs is option.get("inputs") else {**option, "inputs": inputs})
    return with_options(spec, [*merged, *theirs.values()])
