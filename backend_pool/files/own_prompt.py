"""The user's own prompt in the place of the rewritten one that a backend wrote into a file. Pure.

A file out of a backend's cache carries the prompt of the job that made it, so what stands there is mapped back node by
node; nodes that this job sent the very same way are taken from this job's own prompt.
"""

import json
from typing import Any

from backend_pool.files.staging import PADDING, SALT_INPUT, Staged
from backend_pool.files.user_folder import names_folder, scrubbed
from backend_pool.model import JsonDict


class OwnPrompt:
    """`prompt` is the user's, `staged` what became of it."""

    def __init__(self, prompt: JsonDict, staged: Staged) -> None:
        self._prompt = prompt
        self._staged = staged

    def of(self, embedded: Any) -> JsonDict | None:
        """The user's form of a prompt found in a file; None for what is no prompt of ours."""
        if not isinstance(embedded, dict) or not embedded or not all(map(_is_node, embedded.values())):
            return None
        if not _is_ours(embedded):
            return None
        joined = {key: node["inputs"].get("string_b") for key, node in embedded.items() if _is_joiner(key, node)}
        nodes = {key: self._node(key, node) for key, node in embedded.items() if key not in joined}
        for node in nodes.values() if joined else ():
            for name, value in node["inputs"].items():
                if isinstance(value, list) and value and value[0] in joined:
                    node["inputs"][name] = joined[value[0]]
        return nodes

    def text_of(self, text: str) -> str | None:
        """The same for JSON text."""
        try:
            found = self.of(json.loads(text))
        except (ValueError, RecursionError):
            return None
        return None if found is None else json.dumps(found)

    def _node(self, key: str, node: JsonDict) -> JsonDict:
        sent, own = self._staged.prompt.get(key), self._prompt.get(key)
        same = isinstance(sent, dict) and isinstance(own, dict) and _essence(sent) == _essence(node)
        if same and isinstance(own, dict):
            return own
        kept = {name: value for name, value in node.items() if name not in ("inputs", "is_changed")}
        if isinstance(kept.get("_meta"), dict) and PADDING in kept["_meta"]:
            kept["_meta"] = {name: value for name, value in kept["_meta"].items() if name != PADDING}
        inputs = {name: value for name, value in node["inputs"].items() if name != SALT_INPUT}
        return {**kept, "inputs": self._restored(inputs)}

    def _restored(self, value: Any) -> Any:
        if isinstance(value, str) and names_folder(value):
            own = self._staged.undo.get(value)
            return scrubbed(value.replace(f"{self._staged.folder}/", "")) if own is None else own
        if isinstance(value, list):
            return [self._restored(item) for item in value]
        if isinstance(value, dict):
            return {key: self._restored(item) for key, item in value.items()}
        return value


def _essence(node: JsonDict) -> Any:
    """What makes a node that node: its class and inputs, whatever the backend noted beside them."""
    inputs = node.get("inputs", {})
    return node.get("class_type"), {name: value for name, value in inputs.items() if name != SALT_INPUT}


def _is_node(value: Any) -> bool:
    node = value if isinstance(value, dict) else {}
    return isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _is_ours(embedded: JsonDict) -> bool:
    marked = any(SALT_INPUT in node["inputs"] or PADDING in (node.get("_meta") or ()) for node in embedded.values())
    return marked or names_folder(json.dumps(embedded))


def _is_joiner(key: str, node: JsonDict) -> bool:
    return key.startswith(f"{PADDING}-") and names_folder(str(node["inputs"].get("string_a")))
