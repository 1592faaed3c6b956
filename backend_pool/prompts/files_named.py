"""Whether a prompt may name files of its user: a look at its texts, without looking for any file. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from backend_pool.prompts.needs import MODEL_SUFFIXES
from backend_pool.prompts.texts import texts_of

FILE = re.compile(r"[^\n]{1,1024}\.[A-Za-z0-9]{1,16}( \[(input|output|temp)\])?")
LOOKED_AT = 10_000
"""Texts of one prompt; one with more counts as naming files."""


def names_files(prompt: Mapping[str, Any]) -> bool:
    """Whether some text of some input ends like a file's name that is no model's."""
    for count, text in enumerate(texts_of(prompt)):
        if count >= LOOKED_AT or (FILE.fullmatch(text) and not text.lower().endswith(MODEL_SUFFIXES)):
            return True
    return False
