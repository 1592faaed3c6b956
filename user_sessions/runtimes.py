"""The runtimes a session host can be told to run, by name; imported only in the process that warms them.

A name of the form `package.module:Class` is imported and called without arguments, which is how a studio runs a
runtime of its own and how tests run theirs.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from proxy.base.errors import ConfigError
from user_sessions.runtime import Runtime

FRONTEND_CACHE = "frontend_cache"
COMFYUI = "comfyui"
CHOICE = "Choose `light`, `comfyui`, or `package.module:Class`."
BOOTSTRAP = Path(__file__).resolve().parent / "comfyui" / "bootstrap.py"


def program(name: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """What runs a module of ours for this runtime, where that is another Python than ours; else nothing."""
    return (options["python"], str(BOOTSTRAP)) if name == COMFYUI else ()


def make_runtime(name: str, options: Mapping[str, str]) -> Runtime:
    """The runtime called `name`. Raises ConfigError when there is none."""
    if name == "light":
        from user_sessions.light.runtime import LightRuntime

        cache = options.get(FRONTEND_CACHE)
        return LightRuntime(Path(cache) if cache else None)
    if name == COMFYUI:
        from user_sessions.comfyui.options import Options
        from user_sessions.comfyui.runtime import ComfyRuntime

        return ComfyRuntime(Options.from_text(options))
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"There is no runtime {name!r}. {CHOICE}")
    try:
        return cast(Runtime, getattr(importlib.import_module(module), attribute)())
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The runtime {name!r} cannot be loaded: {error}.") from error


def readable_paths(name: str, options: Mapping[str, str]) -> tuple[Path, ...]:
    """What this runtime's sessions must be able to read besides the Python installation, without loading it.
    Raises ConfigError when there is none of that name."""
    if name == "light":
        cache = options.get(FRONTEND_CACHE)
        return (Path(cache).resolve(),) if cache else ()
    if name == COMFYUI:
        from user_sessions.comfyui.install import Install
        from user_sessions.comfyui.options import Options

        told = Options.from_text(options)
        return Install(told.directory, told.python, told.version).readable()
    module, colon, _ = name.partition(":")
    try:
        spec = importlib.util.find_spec(module) if colon else None
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(f"There is no runtime {name!r}. {CHOICE}")
    return (Path(spec.origin).resolve().parent,)
