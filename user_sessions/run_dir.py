"""Where sockets live: short enough for a Unix socket, ours alone.

A Unix socket's path may have 107 bytes. `<data>/run` is used when every socket below it fits, else a private directory
in the temporary folder, named after the data directory so that the next start finds it again.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.base.errors import ConfigError
from user_sessions.directories import make_private

if TYPE_CHECKING:  # a session host has flags, and is to start without loading the settings
    from proxy.base.settings import Settings

SOCKET_BYTES = 107
LONGEST_SLUG = 24 + 1 + 8  # names.slug: readable part, dash, hash
LONGEST_BELOW = 1 + LONGEST_SLUG + len("/session.sock")


def run_dir(settings: "Settings") -> Path:
    """The run directory in force, made 0700 and verified to be ours. Raises ConfigError or Unavailable."""
    if settings.run_dir is not None:
        given = _absolute(settings.run_dir)
        if not fits(given):
            room = SOCKET_BYTES - LONGEST_BELOW
            raise ConfigError(f"The path of `run_dir` is longer than {room} bytes: {given}. Choose a shorter one.")
        return _made(given)
    data = _absolute(settings.data_dir)
    if fits(data / "run"):
        return _made(data / "run")
    path = _temporary(data)
    if not fits(path):
        raise ConfigError(f"No run directory is short enough for sockets: {path}. Set `run_dir`.")
    return _made(path)


def clear(settings: "Settings") -> None:
    """After a clean stop: remove the directory in the temporary folder, which nobody would ever miss. One that a
    session host listens in, or that has records of processes, stays; so do directories an operator knows of."""
    data = _absolute(settings.data_dir)
    path = _temporary(data)
    if settings.run_dir is not None or fits(data / "run") or path.is_symlink():
        return
    if not host_socket(path).exists() and not any(path.rglob("*.json")):
        shutil.rmtree(path, ignore_errors=True)


def fits(path: Path) -> bool:
    """Whether every session's socket below `path` stays within the kernel's limit."""
    return len(os.fsencode(path)) + LONGEST_BELOW <= SOCKET_BYTES


def host_socket(run: Path) -> Path:
    """The session host's control socket."""
    return run / "host.sock"


def session_socket(run: Path, slug: str) -> Path:
    """A session's own socket, in a directory that holds nothing else."""
    return run / slug / "session.sock"


def _temporary(data: Path) -> Path:
    name = f"comfy-cluster-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    return Path(tempfile.gettempdir()) / name


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_private(path)
    return path


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a planted link
