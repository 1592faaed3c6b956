"""A user's own custom nodes, loaded after the fork and inside the sandbox: into their session, and no other.

Off unless the operator allows it (setting `user_custom_nodes`). They lie in `users/<slug>/custom_nodes`, which the
session reads and does not write; what fails to load there stays there.
"""

import inspect
from pathlib import Path
from typing import Any

from proxy.base.logs import events
from user_sessions.comfyui.packs import Packs

log = events(__name__)


async def load_user_nodes(nodes: Any, folder_paths: Any, folder: Path, packs: Packs) -> None:
    """Load each pack of that folder; `packs` knows afterwards which failed. A folder that is missing is empty."""
    load = getattr(nodes, "load_custom_node", None)
    if load is None:
        return
    folder_paths.add_model_folder_path("custom_nodes", str(folder))
    load = getattr(load, "__wrapped__", load)
    known = set(nodes.NODE_CLASS_MAPPINGS)
    for path in _listed(folder):
        if path.name.startswith((".", "__")) or path.name.endswith(".disabled"):
            continue
        if path.is_file() and path.suffix != ".py":
            continue
        result = packs.guarded(load)(str(path), known, module_parent="custom_nodes")
        if inspect.isawaitable(result):
            await result


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("a user's own custom nodes cannot be read", reason=error.strerror)
        return []
