"""Turns a forked ComfyUI into one user's: their directories, a database and a log of their own.

Runs in the child after the sandbox closed, before anything is served. ComfyUI reads its directories through functions
at each use; what custom nodes copied at their import is found and replaced where it is a plain name of a module.
"""

import contextlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from proxy.base.logs import events
from user_sessions.comfyui.command_line import database_url
from user_sessions.comfyui.warm import Warm
from user_sessions.first_settings import first_settings
from user_sessions.runtime import SessionSpec

SETTINGS_FILE = "comfy.settings.json"
DEFAULT_USER = "default"
FOLDERS = ("workflows", "subgraphs")

log = events(__name__)

Copied = tuple[ModuleType | type, str, str]


def adopt(warm: Warm, spec: SessionSpec, copied: list[Copied]) -> None:
    """Make this process that user's."""
    _own_log(warm)
    _directories(warm, spec)
    _replace_copies(warm, spec, copied)
    _limits(warm, spec)
    _database(warm, spec)
    _home(warm, spec)


def copied_paths(warm: Warm, modules: dict[str, ModuleType]) -> list[Copied]:
    """Names in modules of custom nodes, and in their classes, that hold a directory, taken at their import; found once,
    before the fork."""
    folders = [str(path) for path in warm.places.directories.all()]
    roots = tuple(f"{path}/" for path in warm.hooks.folder_paths.get_folder_paths("custom_nodes"))
    found: list[Copied] = []
    for module in list(modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(module, ModuleType) or not isinstance(file, str) or not file.startswith(roots):
            continue
        own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
        holders: list[ModuleType | type] = [module, *own]
        for holder in holders:
            for name, value in list(vars(holder).items()):
                text = str(value) if isinstance(value, str | Path) else ""
                if any(text == folder or text.startswith(f"{folder}/") for folder in folders):
                    found.append((holder, name, text))
    return found


def _directories(warm: Warm, spec: SessionSpec) -> None:
    folder_paths, mine = warm.hooks.folder_paths, spec.directories
    if warm.places.directories == mine:  # given on the command line already
        return
    folder_paths.set_input_directory(str(mine.input))
    folder_paths.set_output_directory(str(mine.output))
    folder_paths.set_temp_directory(str(mine.temp))
    folder_paths.set_user_directory(str(mine.user))
    before = f"{warm.places.directories.output}/"
    for kind, (paths, *rest) in list(folder_paths.folder_names_and_paths.items()):
        moved = [str(mine.output / path.removeprefix(before)) if path.startswith(before) else path for path in paths]
        folder_paths.folder_names_and_paths[kind] = (moved, *rest)
    cache = getattr(folder_paths, "filename_list_cache", None)
    if isinstance(cache, dict):
        cache.clear()


def _replace_copies(warm: Warm, spec: SessionSpec, copied: list[Copied]) -> None:
    pairs = list(zip(warm.places.directories.all(), spec.directories.all(), strict=True))
    for holder, name, text in copied:
        for before, after in pairs:
            if text == str(before) or text.startswith(f"{before}/"):
                kept = type(vars(holder)[name])
                with contextlib.suppress(AttributeError, TypeError):  # a class that forbids it
                    setattr(holder, name, kept(str(after) + text.removeprefix(str(before))))


def _limits(warm: Warm, spec: SessionSpec) -> None:
    """`args` is what the feature flags show; the application has a copy from its making."""
    warm.hooks.args.max_upload_size = spec.max_upload_mb
    if hasattr(warm.server.app, "_client_max_size"):
        warm.server.app._client_max_size = spec.max_upload_mb * 1024 * 1024


def _database(warm: Warm, spec: SessionSpec) -> None:
    """Only versions that keep something in it have migrations."""
    if not hasattr(warm.hooks.args, "database_url"):
        return
    warm.hooks.args.database_url = database_url(spec.directories.user)
    setup = warm.setup_database
    migrations = Path(inspect.getfile(warm.hooks.main)).parent / "alembic_db" / "versions"
    if setup is None or inspect.signature(setup).parameters or not any(_python_files(migrations)):
        return
    try:
        setup()
    except BaseException as error:  # it exits where the database is locked; files and workflows need none
        log.warning("ComfyUI's own database is not available", reason=repr(error))


def _python_files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from folder.glob("*.py")


def _own_log(warm: Warm) -> None:
    """The terminal shows a ring of lines; those from before the fork are not this user's."""
    ring: Any = getattr(warm.hooks.logger, "logs", None)
    if ring is not None and hasattr(ring, "clear"):
        ring.clear()
    for stream in (sys.stdout, sys.stderr):
        pending = getattr(stream, "_logs_since_flush", None)
        if isinstance(pending, list):
            pending.clear()


def _home(warm: Warm, spec: SessionSpec) -> None:
    """The folders the WebUI asks for first, and settings with which a first visit lands on the canvas."""
    home = spec.directories.user / DEFAULT_USER
    for name in FOLDERS:
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = home / SETTINGS_FILE
    if not settings.exists():
        partial = settings.with_name(f".{SETTINGS_FILE}.part")
        partial.write_text(json.dumps(first_settings(warm.frontend_version), indent=4))
        partial.replace(settings)
