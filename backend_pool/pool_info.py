"""The pool's object_info as users see it: the union over backends, each user's own files in the file lists.

A pool's document has megabytes and changes rarely, a user's part has a few nodes: the common part is serialised once
per change of the pool and only the nodes that list files are written anew per request.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend_pool.node_info import ObjectInfo, input_specs, merge, options, upload_folder, upload_kind, with_options

ListFiles = Callable[[str, str], list[str]]
"""(directory: input|output|temp, media type prefix) -> names of the user's files, sorted."""


class PoolInfo:
    """One immutable state of the union."""

    def __init__(self, infos: Sequence[ObjectInfo]) -> None:
        self.union: dict[str, Any] = merge(infos)
        self._personal = [name for name, node in self.union.items() if _lists_files(node)]
        common = {name: node for name, node in self.union.items() if name not in set(self._personal)}
        self._common = json.dumps(common).encode()[:-1]

    def document(self, files: ListFiles) -> bytes:
        """The whole object_info of one user as JSON bytes."""
        personal = json.dumps({name: self._own(name, files) for name in self._personal}).encode()[1:]
        return self._common + (b", " if len(self._common) > 1 and len(personal) > 1 else b"") + personal

    def node(self, name: str, files: ListFiles) -> dict[str, Any]:
        """`/object_info/{class}`: `{}` for an unknown class, as in ComfyUI."""
        return {name: self._own(name, files)} if name in self.union else {}

    def _own(self, name: str, files: ListFiles) -> Mapping[str, Any]:
        node: Mapping[str, Any] = self.union[name]
        groups: dict[str, Any] = {}
        for group, inputs in node["input"].items():
            groups[group] = inputs
            if isinstance(inputs, Mapping):
                groups[group] = {key: _with_files(spec, files) for key, spec in inputs.items()}
        return {**node, "input": groups}


def _lists_files(node: Mapping[str, Any]) -> bool:
    return any(upload_kind(spec) is not None and options(spec) is not None for _, spec in input_specs(node))


def _with_files(spec: Any, files: ListFiles) -> Any:
    kind = upload_kind(spec)
    if kind is None or options(spec) is None:
        return spec
    return with_options(spec, list(files(upload_folder(spec), kind)))
