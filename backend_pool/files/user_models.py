"""A user's own models: what their jobs saved below the output directory where ComfyUI itself looks (protocol §4.6).

Offered to their owner alone, and only where a backend has that user's output directory as its own.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backend_pool.files.user_files import UserDirs, listing
from backend_pool.prompts.needs import MODEL_INPUTS, MODEL_SUFFIXES
from backend_pool.prompts.node_info import options, upload_kind
from proxy.base.file_owner import as_owner_of

OWN_FOLDERS = {
    "checkpoints": "checkpoints",
    "loras": "loras",
    "vae": "vae",
    "text_encoders": "clip",
    "diffusion_models": "diffusion_models",
}
"""Model folder -> its folder in the output directory (main.py of 0.8.0)."""

OWN_INPUTS = frozenset(name for name, known in MODEL_INPUTS.items() if known.folder in OWN_FOLDERS)
"""Inputs whose lists get the user's own models."""

ListFiles = Callable[[str, str], list[str]]
"""(directory: input|output|temp, media type prefix) -> names of the user's files, sorted."""
ListModels = Callable[[str], list[str]]
"""(model folder) -> names of the user's own models of that kind, sorted."""

MOST_FILES = 2000
"""Of one folder; the rest is not listed."""


@dataclass(frozen=True)
class Files:
    """A user's own files, as the lists of nodes show them."""

    listing: ListFiles
    models: ListModels


def files_of(dirs: UserDirs) -> Files:
    """Those below the user's directories."""
    return Files(partial(listing, dirs), partial(own_models, dirs))


def own_folder(input_name: str, spec: Any) -> str | None:
    """The model folder of an input whose list gets the user's own models, None for others."""
    if input_name not in OWN_INPUTS or options(spec) is None or upload_kind(spec) is not None:
        return None
    return MODEL_INPUTS[input_name].folder


def own_models(dirs: UserDirs, folder: str) -> list[str]:
    """Sorted names of the user's own models of a folder, as ComfyUI lists them. Blocking; follows no links."""
    root = dirs.output / OWN_FOLDERS[folder]
    with contextlib.suppress(FileNotFoundError), as_owner_of(dirs.output):
        return sorted(_models(root))[:MOST_FILES]
    return []


def _models(root: Path) -> list[str]:
    names: list[str] = []
    for where, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        models = (f"{where}/{file}" for file in files if file.lower().endswith(MODEL_SUFFIXES))
        names += [os.path.relpath(path, root) for path in models if not os.path.islink(path)]  # noqa: PTH114
        if len(names) >= MOST_FILES:
            break
    return names
