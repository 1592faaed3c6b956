"""Model files that an administrator hides from lists and prompts (`hidden_models`). Pure.

A pattern is compared with a file's name, with its path inside its folder, and with `folder/path`, letters' case aside.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from backend_pool.prompts.needs import MODEL_SUFFIXES
from backend_pool.prompts.spelling import spelled
from backend_pool.prompts.texts import texts_in

EMBEDDING = re.compile(r"embedding:([^\s,()\[\]{}<>|]+)", re.IGNORECASE)
"""How a prompt's text names an embedding (comfy/sd1_clip.py)."""


class Hidden:
    """The patterns. False when there are none."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(spelled(pattern).lower() for pattern in patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def hides(self, file: str, folder: str = "") -> bool:
        """Whether that file of a model folder is hidden; without a folder, whether it would be in any."""
        path = spelled(file).lower()
        forms = {path, path.rpartition("/")[2], f"{folder.lower()}/{path}"}
        for pattern in self._patterns:
            if any(fnmatchcase(form, pattern) for form in forms):
                return True
            if not folder and "/" in pattern and fnmatchcase(path, pattern.partition("/")[2]):
                return True
        return False

    def hides_choice(self, value: Any) -> bool:
        """Whether a choice of a list, or a prompt's value, names a hidden file: by its ending, since lists have no
        folder."""
        return isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES) and self.hides(value)

    def named_in(self, prompt: Any) -> tuple[str, str, str] | None:
        """(node id, input, file) of the first hidden file that a prompt names, None when it names none."""
        if not self or not isinstance(prompt, Mapping):
            return None
        for node_id, node in prompt.items():
            inputs = node.get("inputs") if isinstance(node, Mapping) else None
            for key, value in inputs.items() if isinstance(inputs, Mapping) else ():
                for text in texts_in(value):
                    found = text if self.hides_choice(text) else self._embedding(text)
                    if found is not None:
                        return str(node_id), str(key), found
        return None

    def _embedding(self, text: str) -> str | None:
        for match in EMBEDDING.finditer(text):
            name = match[1].partition(":")[0]
            if any(self.hides(f"{name}{suffix}", "embeddings") for suffix in ("", *MODEL_SUFFIXES)):
                return name
        return None
