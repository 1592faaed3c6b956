"""The pool's object_info as users see it: the union over backends, each user's own files in the file lists.

A pool's document has megabytes and changes rarely, a user's part has a few nodes: the common part is serialised and
compressed once per change of the pool, and only the nodes that list files are written anew per request.
"""

import json
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from backend_pool.files.user_folder import names_folder
from backend_pool.files.user_models import Files, own_folder
from backend_pool.offers.hidden_models import Hidden
from backend_pool.offers.node_union import merge
from backend_pool.offers.offer import Provider
from backend_pool.offers.packed import Beginning
from backend_pool.offers.pool_models import PoolModels
from backend_pool.prompts.dynamic_inputs import with_specs
from backend_pool.prompts.node_info import config, options, upload_folder, upload_kind, with_options


class PoolInfo:
    """One immutable state of the union. `denied` classes are not in it, so no prompt with them is accepted."""

    def __init__(
        self, providers: Sequence[Provider] = (), denied: Collection[str] = (), hidden: Sequence[str] = ()
    ) -> None:
        self.providers = tuple(providers)
        self.denied = frozenset(denied)
        self.hidden = Hidden(hidden)
        self.models = PoolModels(self.providers, self.hidden)
        merged = merge([provider.offer.info for provider in self.providers])
        self.varied = {
            name: frozenset(self.providers[position].key for position in positions)
            for name, positions in merged.varied.items()
        }
        """Classes that not all backends define alike -> keys of those that part from the union."""
        self.own_models = any(provider.reads_user_models for provider in self.providers)
        """Whether a user's own models can be used anywhere."""
        self.union: dict[str, Any] = {}
        common: list[str] = []
        self._personal: list[str] = []
        for name, node in merged.nodes.items():
            if name in self.denied:
                continue
            self.union[name], text = self._public(node)
            if self._is_personal(self.union[name]):
                self._personal.append(name)
            else:
                common.append(f"{json.dumps(name)}: {text}")
        self.beginning = Beginning(("{" + ", ".join(common)).encode())
        """The part of the document that all users share."""

    def end(self, files: Files) -> bytes:
        """The rest of one user's document as JSON bytes."""
        own = ", ".join(f"{json.dumps(name)}: {json.dumps(node)}" for name, node in self.personal(files).items())
        return (", " if len(self.beginning.content) > 1 and own else "").encode() + own.encode() + b"}"

    def document(self, files: Files) -> bytes:
        """The whole object_info of one user."""
        return self.beginning.whole(self.end(files))

    def node(self, name: str, files: Files) -> dict[str, Any]:
        """`/object_info/{class}`: `{}` for an unknown class, as in ComfyUI."""
        if name in self._personal:
            return {name: self._own(name, _Once(files))}
        return {name: self.union[name]} if name in self.union else {}

    def personal(self, files: Files) -> dict[str, Any]:
        """The nodes whose lists have the user's own files."""
        once = _Once(files)
        return {name: self._own(name, once) for name in self._personal}

    def of_user(self, files: Files) -> Mapping[str, Any]:
        """The union by which a user's prompts are judged."""
        return ChainMap(self.personal(files), self.union) if self.own_models else self.union

    def _own(self, name: str, files: "_Once") -> Mapping[str, Any]:
        def with_files(key: str, spec: Any) -> Any:
            kind = upload_kind(spec)
            if kind is not None and _lists_own(spec):
                return with_options(spec, files.listing(upload_folder(spec), kind))
            folder = own_folder(key, spec) if self.own_models else None
            more = files.models(folder) if folder is not None else None
            return with_options(spec, list(dict.fromkeys([*(options(spec) or ()), *more]))) if more else spec

        return with_specs(self.union[name], with_files)

    def _is_personal(self, node: Mapping[str, Any]) -> bool:
        found = False

        def look(key: str, spec: Any) -> Any:
            nonlocal found
            found = found or _lists_own(spec) or (self.own_models and own_folder(key, spec) is not None)
            return spec

        with_specs(node, look)
        return found

    def _public(self, node: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """The node without folders of users and without hidden models in its lists, and its JSON."""
        text = json.dumps(node)
        if names_folder(text) or self.hidden:
            node = with_specs(node, self._shown)
            text = json.dumps(node)
        return node, text

    def _shown(self, _key: str, spec: Any) -> Any:
        listed = options(spec)
        shown = [c for c in listed or () if not names_folder(str(c)) and not self.hidden.hides_choice(c)]
        return spec if listed is None or len(shown) == len(listed) else with_options(spec, shown)


class _Once:
    """A user's files, each list read once: many nodes show the same."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[tuple[str, ...], list[str]] = {}

    def listing(self, where: str, kind: str) -> list[str]:
        if (where, kind) not in self._known:
            self._known[where, kind] = list(self._files.listing(where, kind))
        return self._known[where, kind]

    def models(self, folder: str) -> list[str]:
        if (folder,) not in self._known:
            self._known[folder,] = list(self._files.models(folder))
        return self._known[folder,]


def _lists_own(spec: Any) -> bool:
    """Whether an input's choices are the user's files; the WebUI itself fetches those of `remote` inputs."""
    return upload_kind(spec) is not None and options(spec) is not None and "remote" not in config(spec)
