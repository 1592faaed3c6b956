"""Which nodes of a prompt a backend will look at: its output nodes and what they hang on. Pure.

Others are neither validated nor executed by ComfyUI, so a file that is gone from one of them is nobody's trouble.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def is_link(value: object) -> bool:
    """Whether an input is `[node id, slot]`; ComfyUI takes every other list for a value (graph_utils.py is_link)."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and isinstance(value[1], int | float)


def links(node: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the nodes that feed a node."""
    inputs = node.get("inputs")
    for value in (inputs if isinstance(inputs, Mapping) else {}).values():
        if is_link(value):
            yield value[0]


def reached(prompt: Mapping[str, Any], targets: Iterable[str]) -> set[str]:
    """Ids of the nodes that the targets need, themselves included: ComfyUI looks at no others' inputs."""
    found: set[str] = set()
    left = list(targets)
    while left:
        node_id = left.pop()
        node = prompt.get(node_id)
        if node_id not in found and isinstance(node, Mapping):
            found.add(node_id)
            left += links(node)
    return found


def outputs(prompt: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    """Ids of the output nodes. One of a class that `info` does not know may be one."""
    return [node_id for node_id, node in prompt.items() if _may_be_output(node, info)]


def _may_be_output(node: Any, info: Mapping[str, Any]) -> bool:
    kind = node.get("class_type") if isinstance(node, Mapping) else None
    known = info.get(kind) if isinstance(kind, str) else None
    return not isinstance(known, Mapping) or known.get("output_node") is True
