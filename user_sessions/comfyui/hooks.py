"""The places in ComfyUI that sessions are built on, looked up by name and checked before use: its internals change.

What must be there for any session raises ConfigError when it is missing; what only forking needs raises Unforkable; the
rest is optional and said to be missing in the log. Known to fit: 0.3.64 to 0.8.0; later ones were read, not run.
"""

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from proxy.base.errors import ConfigError
from proxy.base.logs import events
from user_sessions.warming import Unforkable

SETTERS = ("set_input_directory", "set_output_directory", "set_temp_directory", "set_user_directory")
OPTIONAL = (
    ("nodes", "load_custom_node", "packs are not guarded: one that fails badly ends the process"),
    ("app.logger", "logs", "a session's terminal starts with what was logged before it began"),
)

log = events(__name__)


@dataclass(frozen=True)
class Hooks:
    """ComfyUI's modules, after `import main`."""

    main: Any
    server: Any
    nodes: Any
    folder_paths: Any
    args: Any
    logger: Any

    def put_aside(self, *names: str) -> None:
        """Make these functions of `main` do nothing, where it has them."""
        for name in names:
            if hasattr(self.main, name):
                setattr(self.main, name, _nothing)


def find(version: str) -> Hooks:
    """The hooks of the ComfyUI that was imported. Raises ConfigError when no session can be served with it."""
    modules = {name: sys.modules.get(name) for name in ("main", "server", "nodes", "folder_paths", "comfy.cli_args")}
    missing = [name for name, module in modules.items() if module is None]
    missing += [
        f"{name}.{attribute}"
        for name, attribute in (
            ("main", "start_comfyui"),
            ("server", "PromptServer"),
            ("comfy.cli_args", "args"),
            ("folder_paths", "get_folder_paths"),
            ("folder_paths", "add_model_folder_path"),
        )
        if modules[name] is not None and not hasattr(modules[name], attribute)
    ]
    if missing:
        raise ConfigError(
            f"ComfyUI {version} cannot serve sessions: {', '.join(missing)} is not there. Use 0.3.64 or newer."
        )
    for name, attribute, consequence in OPTIONAL:
        if not hasattr(sys.modules.get(name), attribute):
            log.warning("this ComfyUI lacks a hook", hook=f"{name}.{attribute}", consequence=consequence)
    return Hooks(
        main=modules["main"],
        server=modules["server"],
        nodes=modules["nodes"],
        folder_paths=modules["folder_paths"],
        args=_attribute(modules["comfy.cli_args"], "args"),
        logger=sys.modules.get("app.logger"),
    )


def check_server(server: object, version: str) -> None:
    """Raise ConfigError when `start_comfyui` made something else than a server of the known shape."""
    missing = [name for name in ("app", "publish_loop", "setup", "loop", "messages") if not hasattr(server, name)]
    if missing:
        raise ConfigError(f"ComfyUI {version} cannot serve sessions: its server has no {', '.join(missing)}.")


def check_forkable(hooks: Hooks) -> None:
    """Raise Unforkable when a fork could not be given directories of its own, or must not be made."""
    missing = [name for name in SETTERS if not callable(getattr(hooks.folder_paths, name, None))]
    if not isinstance(getattr(hooks.folder_paths, "folder_names_and_paths", None), dict):
        missing.append("folder_names_and_paths")
    if missing:
        raise Unforkable(f"ComfyUI cannot be given directories after its import: folder_paths.{missing[0]} is missing.")
    if not inspect.isfunction(getattr(hooks.main, "prompt_worker", None)):
        raise Unforkable("ComfyUI's thread for prompts cannot be held back: main.prompt_worker is missing.")


def check_cuda() -> None:
    """Raise Unforkable when something has begun to use a GPU: a fork of such a process crashes there."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        raise Unforkable("Something initialised CUDA during the import, which does not survive a fork.")


def _attribute(module: ModuleType | None, name: str) -> Any:
    return getattr(module, name)


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Instead of ComfyUI's own function."""
