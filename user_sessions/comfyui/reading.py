"""Which paths a ComfyUI session must be able to read, known once everything is imported.

Models and custom nodes may lie anywhere (links, extra_model_paths.yaml). Nothing is given that the data directory lies
in: that would open every user's files.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from proxy.base.logs import events
from user_sessions.comfyui.hooks import Hooks
from user_sessions.comfyui.install import Install
from user_sessions.comfyui.options import Options

log = events(__name__)


def readable(options: Options, hooks: Hooks) -> tuple[Path, ...]:
    """Absolute paths, those that exist."""
    data = options.data.resolve()
    kept = set()
    for path in _wanted(options, hooks):
        real = path.resolve()
        if data.is_relative_to(real):
            log.warning("a path stays closed to sessions: the data directory lies in it", path=path)
        elif not real.is_relative_to(data) and real.exists():
            kept |= {path, real}
    kept.add(options.frontend_cache)
    return tuple(sorted(kept))


def _wanted(options: Options, hooks: Hooks) -> Iterator[Path]:
    yield from Install(options.directory, options.python, options.version).readable()
    for prefix in {sys.prefix, sys.base_prefix}:
        yield Path(prefix) / "lib"  # libraries of a conda environment or a Python built by hand
    for paths, *_ in hooks.folder_paths.folder_names_and_paths.values():
        yield from map(Path, paths)
    for table in ("EXTENSION_WEB_DIRS", "LOADED_MODULE_DIRS"):
        yield from map(Path, getattr(hooks.nodes, table, {}).values())
    root = getattr(hooks.args, "front_end_root", None)
    if root:
        yield Path(root)
