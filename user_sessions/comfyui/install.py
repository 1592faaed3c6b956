"""Which ComfyUI sessions run and with which Python: found and checked before anything is started.

Looks at files only; whether that Python can really import ComfyUI shows when the zygote warms.
"""

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from proxy.base.errors import ConfigError

PYTHONS = (".venv/bin/python", "venv/bin/python", "../python_embeded/bin/python", "../.venv/bin/python")
NEEDED = ("main.py", "folder_paths.py", "server.py", "nodes.py", "comfyui_version.py")
VERSION = re.compile(r"""__version__\s*=\s*["']([^"']+)["']""")
PRIVATE = frozenset({"input", "output", "temp", "user"})
"""Folders of an install that belong to whoever used it before, and that no session may read."""


@dataclass(frozen=True)
class Install:
    """A ComfyUI and its Python; both absolute."""

    directory: Path
    python: Path
    version: str

    def readable(self) -> tuple[Path, ...]:
        """What sessions must be able to read of it: everything but the folders of its former use and hidden files."""
        return tuple(
            sorted(
                path for path in self.directory.iterdir() if path.name not in PRIVATE and not path.name.startswith(".")
            )
        )


def find_install(directory: Path | None, python: Path | None) -> Install:
    """The install in `directory`, with `python` or the one that is found for it. Raises ConfigError saying what to
    set."""
    if directory is None:
        raise ConfigError("Sessions of the runtime `comfyui` need a ComfyUI: name its directory with --comfyui.")
    found = Path(os.path.abspath(directory))  # noqa: PTH100 - links to models must stay links
    missing = [name for name in NEEDED if not (found / name).is_file()]
    if missing:
        raise ConfigError(f"{found} is no ComfyUI: {', '.join(missing)} is missing there. Check --comfyui.")
    return Install(found, find_python(found, python), version_of(found))


def version_of(directory: Path) -> str:
    """The version it says it has. Raises ConfigError."""
    try:
        text = (directory / "comfyui_version.py").read_text()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}. Check --comfyui.") from error
    match = VERSION.search(text)
    if match is None:
        raise ConfigError(f"{directory}/comfyui_version.py names no version. Check --comfyui, or update that ComfyUI.")
    return match.group(1)


def find_python(directory: Path, python: Path | None) -> Path:
    """The interpreter that runs it. Raises ConfigError."""
    if python is not None:
        given = Path(os.path.abspath(python))  # noqa: PTH100 - a virtual environment's Python is a link
        if not os.access(given, os.X_OK) or given.is_dir():
            raise ConfigError(f"{given} is no program that can be started. Check --comfyui-python.")
        return given
    for name in PYTHONS:
        candidate = Path(os.path.abspath(directory / name))  # noqa: PTH100 - see above
        if os.access(candidate, os.X_OK):
            return candidate
    if find_spec("torch") is not None:
        return Path(sys.executable)
    raise ConfigError(
        f"No Python was found for {directory}: it has no .venv or venv, and torch is not installed beside this server. "
        "Name the interpreter that runs it with --comfyui-python."
    )
