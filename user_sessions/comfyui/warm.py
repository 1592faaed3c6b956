"""Imports ComfyUI and its shared custom nodes once, so that sessions can be forked from the process afterwards.

Runs ComfyUI's own `main.start_comfyui`, with its thread for prompts held back, nothing wiped, no database opened and
the GPU out of sight. Opens no port. Runs in the zygote, or in a process that will be one session.
"""

import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from proxy.base.errors import ClusterError, ConfigError
from proxy.base.logs import FIELDS, TextFormatter, events
from user_sessions.comfyui import hooks as found_hooks
from user_sessions.comfyui.command_line import Places, command_line
from user_sessions.comfyui.hooks import Hooks
from user_sessions.comfyui.options import Options
from user_sessions.comfyui.packs import Packs

SURROUNDINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "ROCR_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",  # a pool of threads does not survive the fork, and whoever waits for it hangs
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
HELD_BACK = ("prompt_worker", "setup_database", "cleanup_temp", "cleanup_temp_filesystem")

log = events(__name__)


@dataclass(frozen=True)
class Warm:
    """ComfyUI, imported and ready to serve."""

    hooks: Hooks
    server: Any
    places: Places
    setup_database: Any
    """ComfyUI's own function, not called yet; None where it has none."""
    routes_added: bool
    frontend_version: str


def warm_up(options: Options, places: Places, packs: Packs, *, hold_routes: bool) -> Warm:
    """Import everything. Raises ConfigError when this ComfyUI cannot be used, with the reason it gave."""
    os.environ.update(SURROUNDINGS)
    os.chdir(options.directory)  # custom nodes know paths relative to it
    sys.path.insert(0, str(options.directory))
    known = (options.directory / "comfy" / "cli_args.py").read_text()
    for path in (*places.directories.all(), places.temp_parent):
        path.mkdir(parents=True, exist_ok=True)
    arguments, sys.argv = (
        sys.argv,
        command_line(options, places, known, debug=logging.getLogger().isEnabledFor(logging.DEBUG)),
    )
    try:
        hooks = _import(options, places, packs)
        return _start(hooks, options, places, packs, hold_routes=hold_routes)
    except ClusterError:
        raise
    except BaseException as error:  # SystemExit too: ComfyUI ends itself where it cannot go on
        log.error("ComfyUI could not be imported", exc_info=error)
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"ComfyUI {options.version} cannot be started: {reason}. The log says more.") from error
    finally:
        sys.argv = arguments


def _import(options: Options, places: Places, packs: Packs) -> Hooks:
    import_module("comfy.options").enable_args_parsing()
    folder_paths = import_module("folder_paths")
    _logs_through_comfyui()
    _share(folder_paths, options.public)
    with _guarded_prestartup(folder_paths, packs, places):
        import_module("main")
    hooks = found_hooks.find(options.version)
    _share(hooks.folder_paths, options.public)  # again: kinds of models that came with extra_model_paths.yaml
    return hooks


def _start(hooks: Hooks, options: Options, places: Places, packs: Packs, *, hold_routes: bool) -> Warm:
    setup_database = getattr(hooks.main, "setup_database", None)
    hooks.put_aside(*HELD_BACK)
    server_class = hooks.server.PromptServer
    add_routes = getattr(server_class, "add_routes", None)
    hold_routes = hold_routes and add_routes is not None
    load = getattr(hooks.nodes, "load_custom_node", None)
    if load is not None:
        hooks.nodes.load_custom_node = packs.guarded(load)
    if hold_routes:
        server_class.add_routes = lambda _self: None
    try:
        made = hooks.main.start_comfyui()
    finally:
        if hold_routes:
            server_class.add_routes = add_routes
    loop, server = made[0], made[1]
    if not loop.is_running():
        loop.close()
    asyncio.set_event_loop(None)
    found_hooks.check_server(server, options.version)
    return Warm(hooks, server, places, setup_database, not hold_routes, _frontend_version(hooks))


def _frontend_version(hooks: Hooks) -> str:
    """Of the package it serves; empty for a frontend from elsewhere."""
    if getattr(hooks.args, "front_end_root", None):
        return ""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("comfyui-frontend-package")
    return ""


def _share(folder_paths: Any, public: Path) -> None:
    """The administrator's shared models and custom nodes, beside those of the install."""
    folder_paths.add_model_folder_path("custom_nodes", str(public / "custom_nodes"))
    models = public / "models"
    kinds = {name for name in folder_paths.folder_names_and_paths if name not in {"custom_nodes", "configs"}}
    kinds |= {path.name for path in models.iterdir() if path.is_dir()} if models.is_dir() else set()
    for kind in sorted(kinds):
        folder_paths.add_model_folder_path(kind, str(models / kind))


@contextlib.contextmanager
def _guarded_prestartup(folder_paths: Any, packs: Packs, places: Places) -> Iterator[None]:
    """ComfyUI runs prestartup scripts while `main` is imported, and one that ends itself would end us: when it asks for
    the folders to look in, they are run here, guarded, and it is shown an empty folder."""
    asked = folder_paths.get_folder_paths

    def answer(kind: str) -> list[str]:
        folders: list[str] = asked(kind)
        if kind != "custom_nodes" or sys._getframe(1).f_code.co_name != "execute_prestartup_script":
            return folders
        packs.prestart(folders, _wanted)
        return [str(places.directories.temp)]

    folder_paths.get_folder_paths = answer
    try:
        yield
    finally:
        folder_paths.get_folder_paths = asked


def _wanted(path: str) -> bool:
    """Whether ComfyUI's arguments and its manager let this pack run."""
    args = sys.modules["comfy.cli_args"].args
    if getattr(args, "disable_all_custom_nodes", False):
        return Path(path).name in getattr(args, "whitelist_custom_nodes", ())
    manager = sys.modules.get("comfyui_manager")
    return not (getattr(args, "enable_manager", False) and manager and manager.should_be_disabled(path))


def _logs_through_comfyui() -> None:
    """When ComfyUI sets up its log, its handler takes the place of ours: its terminal shows what goes through there,
    and ours beside it would print everything twice."""
    try:
        module = import_module("app.logger")
        set_up = module.setup_logger
    except (ImportError, AttributeError) as error:
        log.warning("this ComfyUI lacks a hook", hook="app.logger.setup_logger", reason=repr(error))
        return

    @functools.wraps(set_up)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        root = logging.getLogger()
        before = list(root.handlers)
        set_up(*args, **kwargs)
        added = [handler for handler in root.handlers if handler not in before]
        for handler in before if added else ():
            root.removeHandler(handler)
        for handler in added:
            handler.setFormatter(OursOrPlain())

    setattr(module, "setup_logger", wrapped)  # noqa: B010 - a module's attribute, which mypy does not know


class OursOrPlain(logging.Formatter):
    """Our events with their fields, everything else as ComfyUI prints it."""

    def __init__(self) -> None:
        super().__init__("%(message)s")
        self._ours = TextFormatter()

    def format(self, record: logging.LogRecord) -> str:
        return self._ours.format(record) if hasattr(record, FIELDS) else super().format(record)
