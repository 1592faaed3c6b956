"""A user's prompt made fit for a stock backend: files named by content, in a folder only this user's jobs can name.

Pure apart from hashing the files it finds. `undo` maps each rewritten text back, so that nothing of it shows in events.
What is checked here is what the backend will see: it unwraps `{"__value__": x}` (execution.py validate_inputs), so that
is unwrapped first, and an input that names a file is refused in every form that cannot be checked.
"""

import contextlib
import copy
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend_pool.comfy.client import FileRef
from backend_pool.files.inputs import NO_FILE, Named, NotHere, rewrite
from backend_pool.files.user_files import (
    SCENE_SUFFIXES,
    SCENES,
    UserDirs,
    annotated,
    digest,
    resolve,
    safe_subfolder,
    version_of,
)
from backend_pool.files.user_folder import names_folder, scrubbed, user_folder
from backend_pool.model import JsonDict
from backend_pool.prompts.node_info import ObjectInfo
from backend_pool.prompts.reach import outputs, reached
from backend_pool.prompts.spelling import respelled
from proxy.base.user_file_open import open_file

PREFIX_INPUT = "filename_prefix"

SALT_INPUT = "cluster_user"
"""No node declares it, so ComfyUI neither checks nor passes it, but its cache key covers it (protocol §5.2)."""

JOINER = "StringConcatenate"
"""The core node that puts the user's folder before a prefix that another node makes."""

SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")

PADDING = "cluster"
MARGIN = 64
"""Characters that a backend's own changes to a prompt (`"7"` to `7`) may take away."""


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
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Content-addressed name -> size and time of change of that file when it was hashed."""
    own: dict[str, FileRef] = field(default_factory=dict)
    """Content-addressed name -> the user's name of that file; the first one where a prompt has two."""
    undo: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Nodes that the user's prompt does not have."""

    def subfolder(self, name: str) -> str:
        """Where a staged file lies in the backend's input directory."""
        return f"{SCENES}/{self.folder}" if Path(name).suffix in SCENE_SUFFIXES else self.folder

    def restore(self, text: str) -> str:
        """JSON text with every rewritten value replaced by the user's own, also as a backend on Windows writes it."""
        for ours, theirs in self.undo.items():
            own = json.dumps(theirs)[1:-1]
            text = text.replace(ours, own).replace(ours.replace("/", "\\\\"), own)
        return scrubbed(text)


def stage(
    prompt: JsonDict,
    info: ObjectInfo,
    dirs: UserDirs,
    tag: str,
    salt: str,
    *,
    targets: Collection[str] = (),
    again: str = "",
) -> Staged:
    """Rewrite a validated prompt; raises Unstageable. Reads the referenced files to name them.

    Only what `targets` need has to be there. `salt` keeps a backend from answering one user's output nodes with
    another's cached files; `again` keeps it from answering any output node with a file it had before.
    """
    staged = Staged(copy.deepcopy(respelled(prompt, info)), user_folder(tag))
    missing: dict[str, list[str]] = {}
    looked_at = reached(staged.prompt, targets or outputs(staged.prompt, info))
    joined: JsonDict = {}
    for node_id, node in staged.prompt.items():
        inputs = node["inputs"] = {key: unwrapped(value) for key, value in node.get("inputs", {}).items()}
        if names_folder(json.dumps(inputs)):
            raise Unstageable(node_id, "This input names a folder of the cluster's own.")
        node.pop("is_changed", None)  # a resubmitted PNG carries it, and ComfyUI would trust it (protocol §8.47)
        known = info.get(node["class_type"], {})
        gone = _stage_files(node_id, inputs, known, dirs, staged)
        if gone and node_id in looked_at:
            missing[node_id] = gone
        prefixed = _prefixed(node_id, inputs, staged.folder, info, joined)
        if known.get("output_node") is True and (again or not prefixed):
            inputs[SALT_INPUT] = again or salt
    if missing:
        raise Unstageable(next(iter(missing)), _missing_text(missing))
    staged.hidden |= joined.keys()
    staged.prompt |= joined
    staged.undo |= {f"{staged.folder}/": "", staged.folder: ""}
    _pad(staged.prompt, prompt)
    return staged


def missing_files(
    prompt: JsonDict, info: ObjectInfo, dirs: UserDirs, targets: Collection[str] = ()
) -> list[tuple[str, Named]]:
    """Node and value for every file that `stage` would not find, without reading any."""
    missing: list[tuple[str, Named]] = []
    wanted = reached(prompt, targets or outputs(prompt, info))
    for node_id, node in prompt.items():
        given = node.get("inputs")
        if node_id not in wanted or not isinstance(given, dict):
            continue

        def look(named: Named, node_id: str = node_id) -> str:
            if named.must and named.text.lower() not in NO_FILE and resolve(dirs, named.text, named.folder) is None:
                missing.append((node_id, named))
            return named.text

        inputs = {key: unwrapped(value) for key, value in given.items()}
        with contextlib.suppress(NotHere):  # `stage` says so better
            rewrite(inputs, info.get(node["class_type"], {}), look)
    return missing


def unwrapped(value: Any) -> Any:
    """An input as the backend will see it. A wrapped list stays wrapped once: bare it would be read as a link."""
    inner = value
    while isinstance(inner, dict) and "__value__" in inner:
        inner = inner["__value__"]
    return {"__value__": inner} if isinstance(inner, list) and inner is not value else inner


def _stage_files(node_id: str, inputs: JsonDict, known: Any, dirs: UserDirs, staged: Staged) -> list[str]:
    """Rewrite the inputs of one node that name files of the user; returns names that must be files and are none."""
    gone: list[str] = []

    def visit(named: Named) -> str:
        path = resolve(dirs, named.text, named.folder)
        if path is not None:
            return _stage_file(named, dirs.root_of(path), path, staged)
        if not named.must or named.text.lower() in NO_FILE:
            return named.text
        gone.append(named.text)
        nothing = f"{staged.folder}/gone-{len(staged.undo)}"  # a node nobody runs may stay; its value must not
        staged.undo[nothing] = named.text
        return nothing

    try:
        rewrite(inputs, known, visit)
    except NotHere as error:
        raise Unstageable(node_id, str(error)) from None
    return gone


def _stage_file(named: Named, root: Path, path: Path, staged: Staged) -> str:
    suffix = path.suffix.lower()
    with open_file(root, path) as content:
        version = version_of(content)
        name = f"{digest(content)[:40]}{suffix if SUFFIX.fullmatch(suffix) else ''}"
    bare, where = annotated(named.text, named.folder)
    subfolder, _, filename = bare.replace("\\", "/").rpartition("/")
    staged.files[name] = path
    staged.versions[name] = version
    staged.own.setdefault(name, FileRef(filename, subfolder, where))
    value = f"{staged.subfolder(name)}/{name}"
    staged.undo.setdefault(value, named.text)
    return value


def _missing_text(missing: dict[str, list[str]]) -> str:
    names = list(dict.fromkeys(name for gone in missing.values() for name in gone))
    if len(names) == 1:
        return f"The file {names[0]} is gone. Choose it again."
    return f"{len(names)} files are gone. Choose them again: {', '.join(names)}"


def _prefixed(node_id: str, inputs: JsonDict, folder: str, info: ObjectInfo, joined: JsonDict) -> bool:
    """Put the user's folder before a save node's prefix; False when it has none, or one that nothing can be put before.

    Before a linked one a node of ours puts it, added to `joined`.
    """
    prefix = inputs.get(PREFIX_INPUT)
    if prefix is None or (isinstance(prefix, list) and JOINER not in info):
        return False
    if isinstance(prefix, list):
        ours = f"{PADDING}-{node_id}"
        joined[ours] = {
            "class_type": JOINER,
            "inputs": {"string_a": f"{folder}/", "string_b": prefix, "delimiter": ""},
        }
        inputs[PREFIX_INPUT] = [ours, 0]
        return True
    if not isinstance(prefix, str) or safe_subfolder(prefix) is None:
        raise Unstageable(node_id, "Saving image outside the output folder is not allowed.")
    inputs[PREFIX_INPUT] = f"{folder}/{prefix}"
    return True


def _pad(ours: JsonDict, own: JsonDict) -> None:
    """Make our prompt at least as long as the user's, so that theirs fits where a backend wrote ours into a file."""
    lacks = max(_length(own) - _length(ours), _length(json.dumps(own)) - _length(json.dumps(ours))) + MARGIN
    if lacks > 0 and ours:
        node = ours[next(reversed(ours))]
        meta = node.get("_meta")
        node["_meta"] = {**(meta if isinstance(meta, dict) else {}), PADDING: "." * lacks}


def _length(value: Any) -> int:
    return len(json.dumps(value))
