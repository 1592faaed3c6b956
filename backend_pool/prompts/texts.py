"""Texts in the values of a prompt, however a node nests them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a JSON value, in order; at any depth, for it may be a stranger's."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            left.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            left.extend(reversed(item))


def texts_of(prompt: Mapping[str, Any]) -> Iterator[str]:
    """Every text that stands in an input of some node."""
    return texts_in([node.get("inputs") for node in prompt.values() if isinstance(node, Mapping)])
