"""A user's prompt made fit for a stock backend: files named by content, in a folder only this user's jobs can name.

Pure apart from hashing the files it finds. `undo` maps each rewritten text back, so that nothing of it shows in events.
What is checked here is what the backend will see: it unwraps `{"__value__": x}` (execution.py validate_inputs), so that
is unwrapped first, and an input that names a file is refused in every form that cannot be checked.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend_pool.comfy_client import FileRef
from backend_pool.model import JsonDict
from backend_pool.node_info import ObjectInfo, input_specs, options, upload_folder, upload_kind
from backend_pool.user_files import UserDirs, annotated, digest, resolve, safe_subfolder
from backend_pool.user_folder import names_folder, scrubbed, user_folder

NO_FILE = frozenset({"", "none"})
"""Values of file inputs that mean no file."""

PREFIX_INPUT = "filename_prefix"

SALT_INPUT = "cluster_user"
"""No node declares it, so ComfyUI neither checks nor passes it, but its cache key covers it (protocol §5.2)."""


class Unstageable(Exception):
    """An input that may not or cannot go to a backend; `node_id` names its node."""

    def __init__(self, node_id: str, message: str) -> None:
        super().__init__(message)
        self.node_id = node_id


@dataclass
class Staged:
    """What to upload and what to submit."""

    prompt: JsonDict
    folder: str = ""
    """The user's folder at the backend."""
    files: dict[str, Path] = field(default_factory=dict)
    """Content-addressed name -> local file."""
    own: dict[str, FileRef] = field(default_factory=dict)
    """Content-addressed name -> the user's name of that file; the first one where a prompt has two."""
    undo: dict[str, str] = field(default_factory=dict)

    def restore(self, text: str) -> str:
        """JSON text with every rewritten value replaced by the user's own, also as a backend on Windows writes it."""
        for ours, theirs in self.undo.items():
            own = json.dumps(theirs)[1:-1]
            text = text.replace(ours, own).replace(ours.replace("/", "\\\\"), own)
        return scrubbed(text)


def stage(prompt: JsonDict, info: ObjectInfo, dirs: UserDirs, tag: str, salt: str) -> Staged:
    """Rewrite a validated prompt; raises Unstageable. Reads the referenced files to name them.

    `salt` keeps a backend from answering one user's output nodes with another's cached files.
    """
    folder = user_folder(tag)
    staged = Staged(copy.deepcopy(prompt), folder)
    for node_id, node in staged.prompt.items():
        inputs = node["inputs"] = {key: unwrapped(value) for key, value in node.get("inputs", {}).items()}
        if names_folder(json.dumps(inputs)):
            raise Unstageable(node_id, "This input names a folder of the cluster's own.")
        node.pop("is_changed", None)  # a resubmitted PNG carries it, and ComfyUI would trust it (protocol §8.47)
        known = info.get(node["class_type"], {})
        for key, path, ref in list(_files(node_id, inputs, known, dirs)):
            name = f"{digest(path)[:40]}{path.suffix.lower()}"
            staged.files[name] = path
            staged.own.setdefault(name, ref)
            staged.undo.setdefault(f"{folder}/{name}", str(inputs[key]))
            inputs[key] = f"{folder}/{name}"
        if not _prefixed(node_id, inputs, folder) and known.get("output_node") is True:
            inputs[SALT_INPUT] = salt
    staged.undo |= {f"{folder}/": "", folder: ""}
    return staged


def unwrapped(value: Any) -> Any:
    """An input as the backend will see it. A wrapped list stays wrapped once: bare it would be read as a link."""
    inner = value
    while isinstance(inner, dict) and "__value__" in inner:
        inner = inner["__value__"]
    return {"__value__": inner} if isinstance(inner, list) and inner is not value else inner


def _prefixed(node_id: str, inputs: JsonDict, folder: str) -> bool:
    """Put the user's folder before a save node's prefix; False when it has none, or a linked one known only later."""
    prefix = inputs.get(PREFIX_INPUT)
    if prefix is None or isinstance(prefix, list):
        return False
    if not isinstance(prefix, str) or safe_subfolder(prefix) is None:
        raise Unstageable(node_id, "Saving image outside the output folder is not allowed.")
    inputs[PREFIX_INPUT] = f"{folder}/{prefix}"
    return True


def _files(node_id: str, inputs: JsonDict, node: Any, dirs: UserDirs) -> Iterator[tuple[str, Path, FileRef]]:
    """Inputs that name a file of the user: those marked for uploads, and list inputs whose value no backend lists."""
    for key, spec in input_specs(node):
        if key not in inputs:
            continue
        value, listed = inputs[key], options(spec)
        marked = upload_kind(spec) is not None
        if marked and not isinstance(value, str):
            raise Unstageable(node_id, f"{key}: choose the file in this node itself; it cannot come from another node.")
        if not isinstance(value, str) or not (marked or (listed is not None and value not in listed)):
            continue
        default = upload_folder(spec) if marked else "input"
        path = resolve(dirs, value, default)
        if path is not None:
            name, where = annotated(value, default)
            subfolder, _, filename = name.replace("\\", "/").rpartition("/")
            yield key, path, FileRef(filename, subfolder, where)
        elif marked and value.lower() not in NO_FILE:
            raise Unstageable(node_id, f"{key}: the file {value} is gone. Choose it again.")
