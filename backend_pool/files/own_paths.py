"""Paths of a user's own directories at a worker, in what its ComfyUI says: the user reads their own names. Pure."""

import re
from collections.abc import Iterable
from typing import Any


class OwnPaths:
    """`homes` are names of the directory that holds the user's `input`, `output` and `temp`, wherever it is mounted."""

    def __init__(self, homes: Iterable[str]) -> None:
        names = "|".join(re.escape(name) for name in homes)
        # So many folders at most: each further one would be tried from every place of a long text.
        self._path = re.compile(rf"(?:/[^\s\"'/]{{1,255}}){{0,32}}/(?:{names})/(?:input|output|temp)/")

    def removed(self, value: Any) -> Any:
        """A JSON value with the user's names in the place of the server's paths to them."""
        if isinstance(value, str):
            return self._path.sub("", value)
        if isinstance(value, dict):
            return {key: self.removed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.removed(item) for item in value]
        return value
