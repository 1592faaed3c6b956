"""Whether a prompt may name files of its user: a look at its texts, without looking for any file. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from backend_pool.prompts.needs import MODEL_SUFFIXES

FILE = re.compile(r"[^\n]{1,1024}\.[A-Za-z0-9]{1,16}( \[(input|output|temp)\])?")
LOOKED_AT = 10_000
"""Texts of one prompt; one with more counts as naming files."""


def names_files(prompt: Mapping[str, Any]) -> bool:
    """Whether some text of some input ends like a file's name that is no model's."""
    texts = (text for node in prompt.values() if isinstance(node, Mapping) for text in _texts(node.get("inputs")))
    for count, text in enumerate(texts):
        if count >= LOOKED_AT or (FILE.fullmatch(text) and not text.lower().endswith(MODEL_SUFFIXES)):
            return True
    return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
