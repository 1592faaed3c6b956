"""One file, two spellings: a backend on Windows lists `sub\\\\a.safetensors`, one on Linux `sub/a.safetensors`. Pure.

Users see and send either; each backend gets the one that it lists, since ComfyUI compares letter by letter.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from backend_pool.prompts.dynamic_inputs import choices, live_inputs


def spelled(choice: Any) -> Any:
    """A choice as it is compared."""
    return choice.replace("\\", "/") if isinstance(choice, str) else choice


def listed_as(value: Any, listed: Iterable[Any]) -> Any:
    """The choice that means the same as `value`, in the list's own spelling; `value` itself when none does."""
    if not isinstance(value, str) or not ("/" in value or "\\" in value):
        return value
    wanted = spelled(value)
    found = [choice for choice in listed if spelled(choice) == wanted]
    return value if not found or value in found else found[0]


def respelled(prompt: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt with every choice as this object_info lists it. What is not changed is shared with the original."""
    return {node_id: _node(node, info) for node_id, node in prompt.items()}


def _node(node: Any, info: Mapping[str, Any]) -> Any:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    kind = node.get("class_type") if isinstance(node, Mapping) else None
    known = info.get(kind) if isinstance(kind, str) else None
    if not isinstance(inputs, Mapping) or not isinstance(known, Mapping):
        return node
    changed = {}
    for _, name, spec in live_inputs(known, inputs):
        listed, value = choices(spec), inputs.get(name)
        if listed and isinstance(value, str) and (own := listed_as(value, listed)) != value:
            changed[name] = own
    return {**node, "inputs": {**inputs, **changed}} if changed else node
