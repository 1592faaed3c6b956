"""The pool's object_info as users see it: the union over backends, each user's own files in the file lists.

A pool's document has megabytes and changes rarely, a user's part has a few nodes: the common part is serialised once
per change of the pool and only the nodes that list files are written anew per request.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from backend_pool.node_info import (
    ObjectInfo,
    config,
    input_specs,
    merge,
    options,
    upload_folder,
    upload_kind,
    with_options,
)
from backend_pool.user_folder import names_folder

ListFiles = Callable[[str, str], list[str]]
"""(directory: input|output|temp, media type prefix) -> names of the user's files, sorted."""


class PoolInfo:
    """One immutable state of the union. `denied` classes are not in it, so no prompt with them is accepted."""

    def __init__(self, infos: Sequence[ObjectInfo], denied: Collection[str] = ()) -> None:
        union = merge(infos)
        self.union: dict[str, Any] = {name: _public(node) for name, node in union.items() if name not in denied}
        self._personal = [name for name, node in self.union.items() if _lists_files(node)]
        personal = set(self._personal)
        common = {name: node for name, node in self.union.items() if name not in personal}
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
        for group, inputs in node.get("input", {}).items():
            groups[group] = inputs
            if isinstance(inputs, Mapping):
                groups[group] = {key: _with_files(spec, files) for key, spec in inputs.items()}
        return {**node, "input": groups}


def _public(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node without the folders of users in its lists."""
    if not names_folder(json.dumps(node)):
        return node
    groups: dict[str, Any] = {}
    for group, inputs in node.get("input", {}).items():
        groups[group] = (
            {key: _without_folders(spec) for key, spec in inputs.items()} if isinstance(inputs, Mapping) else inputs
        )
    return {**node, "input": groups}


def _without_folders(spec: Any) -> Any:
    listed = options(spec)
    if not listed:
        return spec
    return with_options(spec, [choice for choice in listed if not names_folder(str(choice))])


def _lists_files(node: Mapping[str, Any]) -> bool:
    return any(_lists_own(spec) for _, spec in input_specs(node))


def _lists_own(spec: Any) -> bool:
    """Whether an input's choices are the user's files; the WebUI itself fetches those of `remote` inputs."""
    return upload_kind(spec) is not None and options(spec) is not None and "remote" not in config(spec)


def _with_files(spec: Any, files: ListFiles) -> Any:
    kind = upload_kind(spec)
    if kind is None or not _lists_own(spec):
        return spec
    return with_options(spec, list(files(upload_folder(spec), kind)))
