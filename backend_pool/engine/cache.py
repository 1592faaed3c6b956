"""ComfyUI's classic cache: results of the latest prompt, found again by what went into them.

A key covers the class, the fingerprint, every constant (undeclared ones too) and the keys of all ancestors, so two
nodes with equal histories share one result, whatever their ids.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend_pool.prompts.reach import is_link, links

_uncachable = itertools.count()


@dataclass(frozen=True)
class Entry:
    """A node's result: `values[slot]` is a list, as ComfyUI maps nodes over lists; `ui` is what `executed` shows."""

    values: list[list[Any]]
    ui: dict[str, Any] | None


class Cache:
    """Used by the worker thread alone."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._keys: dict[str, str] = {}

    def prepare(
        self, prompt: Mapping[str, Any], fingerprint: Callable[[str], Any], owner: Callable[[str], str]
    ) -> list[str]:
        """Compute the keys of a prompt, drop what it has no use for, and list the nodes that are cached.

        `owner` says for whom a node's result is kept: "" for everybody.
        """
        self._keys = keys_of(prompt, fingerprint, owner)
        used = set(self._keys.values())
        self._entries = {key: entry for key, entry in self._entries.items() if key in used}
        return [node_id for node_id in prompt if self._keys[node_id] in self._entries]

    def get(self, node_id: str) -> Entry | None:
        """The result of a node of the current prompt."""
        return self._entries.get(self._keys[node_id])

    def set(self, node_id: str, entry: Entry) -> None:
        """Keep the result of a node of the current prompt."""
        self._entries[self._keys[node_id]] = entry

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def keys_of(
    prompt: Mapping[str, Any], fingerprint: Callable[[str], Any], owner: Callable[[str], str] = lambda _: ""
) -> dict[str, str]:
    """The cache key of every node, parents before children; nodes in or below a circle get one of no use."""
    keys: dict[str, str] = {}
    for root in prompt:
        stack, open_nodes = [root], set[str]()
        while stack:
            node_id = stack[-1]
            missing = [] if node_id in keys else [p for p in links(prompt[node_id]) if p in prompt and p not in keys]
            if missing and node_id not in open_nodes:
                open_nodes.add(node_id)
                stack += missing
                continue
            stack.pop()
            if node_id not in keys:
                keys[node_id] = _key(prompt[node_id], [fingerprint(node_id), owner(node_id)], keys)
    return keys


def _key(node: Mapping[str, Any], marks: list[Any], keys: Mapping[str, str]) -> str:
    if isinstance(marks[0], float):  # NaN: the fingerprint could not be taken, never equal to anything
        return f"once:{next(_uncachable)}"
    parts: list[Any] = [node.get("class_type"), *marks]
    inputs = node.get("inputs")
    for name, value in sorted((inputs if isinstance(inputs, dict) else {}).items()):
        if is_link(value):
            parts.append([name, "from", keys.get(value[0], f"once:{next(_uncachable)}"), value[1]])
        else:
            parts.append([name, "is", value])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
