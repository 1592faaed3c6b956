"""A user's prompt made fit for a stock backend: files named by content, save prefixes carrying the user.

Pure apart from hashing the files it finds. `undo` maps each rewritten text back, so that nothing of it shows in events.
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

INPUT_FOLDER = "cluster"
"""Subfolder of a backend's input directory that holds staged files."""

PREFIX_INPUT = "filename_prefix"

SALT_INPUT = "cluster_user"
"""No node declares it, so ComfyUI neither checks nor passes it, but its cache key covers it (protocol §5.2)."""


class UnsafePrefix(Exception):
    """A save node would leave the output folder; `node_id` names it."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Saving image outside the output folder is not allowed.")
        self.node_id = node_id


@dataclass
class Staged:
    """What to upload and what to submit."""

    prompt: JsonDict
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
        return text


def output_folder(tag: str) -> str:
    """Subfolder of a backend's output directory for one user; `tag` is unguessable."""
    return f"{INPUT_FOLDER}/{tag}"


def stage(prompt: JsonDict, info: ObjectInfo, dirs: UserDirs, tag: str) -> Staged:
    """Rewrite a validated prompt; raises UnsafePrefix. Reads the referenced files to name them."""
    staged = Staged(copy.deepcopy(prompt))
    for node_id, node in staged.prompt.items():
        inputs = node.get("inputs", {})
        node.pop("is_changed", None)  # a resubmitted PNG carries it, and ComfyUI would trust it (protocol §8.47)
        known = info.get(node["class_type"], {})
        for key, path, ref in list(_files(inputs, known, dirs)):
            name = f"{digest(path)[:40]}{path.suffix.lower()}"
            staged.files[name] = path
            staged.own.setdefault(name, ref)
            staged.undo.setdefault(f"{INPUT_FOLDER}/{name}", str(inputs[key]))
            inputs[key] = f"{INPUT_FOLDER}/{name}"
        prefix = inputs.get(PREFIX_INPUT)
        if isinstance(prefix, str):
            if safe_subfolder(prefix) is None:
                raise UnsafePrefix(node_id)
            inputs[PREFIX_INPUT] = f"{output_folder(tag)}/{prefix}"
        elif known.get("output_node") is True:
            # Without it a backend would answer one user's PreviewImage with another's cached file, workflow inside.
            inputs[SALT_INPUT] = tag
    staged.undo |= {f"{output_folder(tag)}/": "", output_folder(tag): ""}
    return staged


def _files(inputs: JsonDict, node: Any, dirs: UserDirs) -> Iterator[tuple[str, Path, FileRef]]:
    """Inputs that name a file of the user: those marked for uploads, and list inputs whose value no backend lists."""
    for key, spec in input_specs(node):
        value = inputs.get(key)
        if not isinstance(value, str) or not value:
            continue
        marked = upload_kind(spec) is not None
        listed = options(spec)
        if marked or (listed is not None and value not in listed):
            default = upload_folder(spec) if marked else "input"
            path = resolve(dirs, value, default)
            if path is not None:
                name, folder = annotated(value, default)
                subfolder, _, filename = name.replace("\\", "/").rpartition("/")
                yield key, path, FileRef(filename, subfolder, folder)
