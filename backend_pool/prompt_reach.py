"""Which nodes of a prompt a backend will look at: its output nodes and what they hang on. Pure.

Others are neither validated nor executed by ComfyUI, so a file that is gone from one of them is nobody's trouble.
"""

from collections.abc import Collection, Mapping
from typing import Any


def reached(prompt: Mapping[str, Any], info: Mapping[str, Any], targets: Collection[str] = ()) -> set[str]:
    """Ids of nodes that may run for these outputs, or for all. A class that `info` does not know may be an output."""
    found: set[str] = set()
    left = list(targets) or [node_id for node_id, node in prompt.items() if _may_be_output(node, info)]
    while left:
        node_id = left.pop()
        if node_id in found or node_id not in prompt:
            continue
        found.add(node_id)
        inputs = prompt[node_id].get("inputs") if isinstance(prompt[node_id], Mapping) else None
        values = inputs.values() if isinstance(inputs, Mapping) else ()
        left += [value[0] for value in values if isinstance(value, list) and value and isinstance(value[0], str)]
    return found


def _may_be_output(node: Any, info: Mapping[str, Any]) -> bool:
    kind = node.get("class_type") if isinstance(node, Mapping) else None
    known = info.get(kind) if isinstance(kind, str) else None
    return not isinstance(known, Mapping) or known.get("output_node") is True
